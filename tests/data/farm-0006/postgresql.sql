--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: artifact; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.artifact (
    sha256 text NOT NULL,
    size_bytes bigint NOT NULL
);


--
-- Name: attempt; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.attempt (
    id bigint NOT NULL,
    step_id bigint NOT NULL,
    number integer NOT NULL,
    token text NOT NULL,
    status text NOT NULL,
    outcome text,
    reason text,
    excerpt text,
    worker text,
    wall_s integer NOT NULL,
    dispatched_at timestamp with time zone NOT NULL,
    offered_at timestamp with time zone,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    phases text,
    peak_memory_bytes bigint,
    holder text
);


--
-- Name: attempt_artifact; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.attempt_artifact (
    attempt_id bigint NOT NULL,
    "position" integer NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    sha256 text NOT NULL,
    nevra text
);


--
-- Name: attempt_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.attempt_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: attempt_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.attempt_id_seq OWNED BY public.attempt.id;


--
-- Name: batch; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.batch (
    id bigint NOT NULL,
    owner text NOT NULL,
    created_at timestamp with time zone NOT NULL
);


--
-- Name: batch_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.batch_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: batch_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.batch_id_seq OWNED BY public.batch.id;


--
-- Name: build; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.build (
    id bigint NOT NULL,
    batch_id bigint NOT NULL,
    package text NOT NULL,
    nevra text,
    source_commit text,
    source text NOT NULL,
    target text NOT NULL,
    arches text NOT NULL,
    options text NOT NULL,
    priority integer NOT NULL,
    owner text NOT NULL,
    status text NOT NULL,
    outcome text,
    reason text,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone
);


--
-- Name: build_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.build_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: build_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.build_id_seq OWNED BY public.build.id;


--
-- Name: closing; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.closing (
    label text NOT NULL
);


--
-- Name: host; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.host (
    name text NOT NULL,
    hold text NOT NULL,
    reason text NOT NULL,
    held_by text NOT NULL,
    held_at timestamp with time zone NOT NULL,
    until_at timestamp with time zone,
    hands_back boolean NOT NULL,
    times integer NOT NULL
);


--
-- Name: owner_load; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.owner_load (
    owner text NOT NULL,
    load_s double precision NOT NULL,
    at timestamp with time zone NOT NULL
);


--
-- Name: package_owner; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.package_owner (
    target text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    owner text NOT NULL,
    build_id bigint NOT NULL,
    claimed_at timestamp with time zone NOT NULL
);


--
-- Name: queue; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.queue (
    name text NOT NULL,
    slots integer NOT NULL,
    busy integer NOT NULL,
    note text
);


--
-- Name: repository; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.repository (
    path text NOT NULL,
    version bigint NOT NULL,
    url text NOT NULL,
    updated_at timestamp with time zone NOT NULL
);


--
-- Name: source_secret; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.source_secret (
    build_id bigint NOT NULL,
    url text NOT NULL
);


--
-- Name: step; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.step (
    id bigint NOT NULL,
    build_id bigint NOT NULL,
    kind text NOT NULL,
    arch text NOT NULL,
    queue text NOT NULL,
    urgency integer NOT NULL,
    owner text NOT NULL,
    status text NOT NULL,
    outcome text,
    reason text,
    is_skipped boolean NOT NULL,
    not_before_at timestamp with time zone,
    attempts integer NOT NULL,
    troubles integer NOT NULL,
    trouble text,
    trouble_hosts text,
    covers text,
    output text,
    deaths integer DEFAULT 0 NOT NULL
);


--
-- Name: step_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.step_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: step_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.step_id_seq OWNED BY public.step.id;


--
-- Name: attempt id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.attempt ALTER COLUMN id SET DEFAULT nextval('public.attempt_id_seq'::regclass);


--
-- Name: batch id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.batch ALTER COLUMN id SET DEFAULT nextval('public.batch_id_seq'::regclass);


--
-- Name: build id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.build ALTER COLUMN id SET DEFAULT nextval('public.build_id_seq'::regclass);


--
-- Name: step id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.step ALTER COLUMN id SET DEFAULT nextval('public.step_id_seq'::regclass);


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.alembic_version VALUES ('0006');


--
-- Data for Name: artifact; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.artifact VALUES ('469d20d0e3a2ba5a8198b00f540c7b6174c1a8eecd8c882a5b4f24e418ab87c8', 162);
INSERT INTO public.artifact VALUES ('5745e133727c3f4cc11d0d6cb81dcc7aa4a939ad8d42daff1708f3e2709c212a', 7039);
INSERT INTO public.artifact VALUES ('de459b70e63b998137dd2d883b3cd20a0d1e52ada074338c121672139a813223', 10240);
INSERT INTO public.artifact VALUES ('f8f8ced4a0058efddc0e674392958efece71940950f0c2dffa0e49e86fa9856e', 1691);
INSERT INTO public.artifact VALUES ('56e70ab9124d19379d65a310ec6b34f54b35ae4fe114091f3f417409b762de88', 177);
INSERT INTO public.artifact VALUES ('7f3e6e4adf3e153aa4382f1f9f86048f705083ce57d03031d71fe126be2fb996', 6817);
INSERT INTO public.artifact VALUES ('38bd8dea4af63c74d38fc221cbae008038c454710541cfcfd2b0ef890d021a54', 8893);
INSERT INTO public.artifact VALUES ('451e9641dea29fd6da1890f44870cbe7f71a0b6305bce7e7c27fb47ac3348cc7', 17);
INSERT INTO public.artifact VALUES ('c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', 16099);
INSERT INTO public.artifact VALUES ('e6da7ed8a49cbdfb263a7ee462da418893471d231650554447358025aba03aec', 551);
INSERT INTO public.artifact VALUES ('94131261ab09f6901e1fee732ff7a17dcc0815fd8d545b557e10b7062247ae94', 7796);
INSERT INTO public.artifact VALUES ('a273e05adfd872a4aea410e0b3cb3ecdabdac6c6863e291b4dd1649ff37fa918', 373);
INSERT INTO public.artifact VALUES ('a8d13e50d142e6b58343589feb5847a4768d0ee909869f2e1ecc104d9d316cd0', 35150);
INSERT INTO public.artifact VALUES ('0af8807e1902616d64b1b6b1e7a193db28297def1cea4f09649895176058a01c', 6858);
INSERT INTO public.artifact VALUES ('20edd59e6ace23034ecb5a58a85fbbc5f2f992ff62fe6affc697a7407c721eb0', 869);
INSERT INTO public.artifact VALUES ('04bca83ee7e54544233f13275b2bb4290f8325da6f406cb379a790e9844fa4bd', 6656);
INSERT INTO public.artifact VALUES ('63b0a287be9326653a16c0dd735c93565d9d9784c8cc3140f1c3856c186ec2b8', 977);
INSERT INTO public.artifact VALUES ('7702efb312b3a6bacdd5ffd2da15a66dd8e7afb774ee6d6e4ab3fd0cccca4f78', 8212);
INSERT INTO public.artifact VALUES ('7aa0e373d2c985150f4fd39106e19271781f2d56fd215ad0e22c577136a8d7ee', 4425);
INSERT INTO public.artifact VALUES ('c0422c66cc6eff2d54c9c2b1e6645285994dc21f11bfd16a6ff54347fe8d0adc', 9362);
INSERT INTO public.artifact VALUES ('c91ab464a7e4a5cd3ff04ccf77c5bb56613496b8082243c6d7248b97d6e63126', 6467);
INSERT INTO public.artifact VALUES ('fba595fca8232ef3a8cbf8212b637f10874ad503425f64c440ba9c6cba38c7e0', 484);
INSERT INTO public.artifact VALUES ('4ed0ac9783f78af813948f244b6cd2b19de6b2919c2bb52541214f989649574e', 3684);
INSERT INTO public.artifact VALUES ('6f89bc87e0e8b59d4473fdd88c6773ff2d17f473c34386444d64ccf06892cc3e', 6640);
INSERT INTO public.artifact VALUES ('d39e4f3959ef78dbfb6fd8f7c616763d2c45d28ea4ec2fb2504a1aeabc6ce133', 9652);
INSERT INTO public.artifact VALUES ('d78bd0e10b3a4b6e432bbbea89c1f093faa843409df9f0e76cc0469dc4fb66e6', 799);
INSERT INTO public.artifact VALUES ('d8233d642a986d6d1bae4a1ea39a6f729f26a8dc99906a93547616f5043c8aa5', 8586);
INSERT INTO public.artifact VALUES ('c55fb9e7b5ab66c9fb45bbabbe49d670d3403d4e90bfb77bb98c15bead0de7f8', 440);
INSERT INTO public.artifact VALUES ('756a928f35466ad1089ed8cff9f839db25ec7e9b5ac99b2e2c06f5af1a76533c', 6340);
INSERT INTO public.artifact VALUES ('a66c678ccacade2aa7d256c567cff8721e1893d27a24d120d19b97dbcad8804a', 470);
INSERT INTO public.artifact VALUES ('e7e7de4875d4ad28bb1d40eea48b0d2e9df0b69dc29e2d19849f103cdc3ffab6', 2230);
INSERT INTO public.artifact VALUES ('5d31a53b3beacac5a6f19aa70f7eadb95f04ae8eca77445588f5086a2547204e', 404);
INSERT INTO public.artifact VALUES ('05627fb5d49a578b32f957730cb019386d539f3c2fe9663bded4459e5f0fd004', 6821);
INSERT INTO public.artifact VALUES ('b0a7756dfe2184103317d300b2e9fb1571dc77a50c4ca23123d65fa94ac52923', 174);
INSERT INTO public.artifact VALUES ('254fd5866dc8ad9a7581500bf5979166c849a2b44cda4bf06d5e524c87abc563', 198);
INSERT INTO public.artifact VALUES ('b03e7d4e1e2188b1e5f468767bf84dd765029854ab9501451070f33400750ff5', 6743);
INSERT INTO public.artifact VALUES ('d09e7e85e119056a7cad58db3b28727b5ce0257a250bd2d2c2fe4f1551b6ea65', 6516);
INSERT INTO public.artifact VALUES ('d962ae425a378c49e81dc9c19ca6f6aacf19bd42608f8e895da6f75a60bff1e2', 177);
INSERT INTO public.artifact VALUES ('4d58bb590e520c9f924e30f34d7480562a6f9c012b883afc5b7d3f2b690a9a48', 881);
INSERT INTO public.artifact VALUES ('7b2f4e7d47ff880cec1966cf65a2b9654d591c93dd5dbe75c605adf655dc1b6c', 6870);
INSERT INTO public.artifact VALUES ('27fa8c9cf9b640fb62d1ba73ef5cb775fd2dd55ce77d0c5977c0e2d1d522df80', 883);
INSERT INTO public.artifact VALUES ('b1f3ccfe23c9d023eb08eb8873311b1baaecee15b97beb095465bbd1ece28d56', 6758);
INSERT INTO public.artifact VALUES ('6b9923f634370b0c4d1076fec1b757819186260e7a33a30ced6e9dbdb4a2810d', 162);
INSERT INTO public.artifact VALUES ('7fdd2588d6d23e674f77481c176795dd3cf3d7684febef812fbc8060c01e1a87', 7258);
INSERT INTO public.artifact VALUES ('c11db3852beb24c8cdc3ccc9b0f44044ec2793981f6693556d30f81c7ceff576', 174);
INSERT INTO public.artifact VALUES ('2eff6f3d86daaec942cecdef536aafd84cac953d60e3d251ac93ce157d191a6d', 1814);
INSERT INTO public.artifact VALUES ('e43b2764794f647fcf73ba838021032c58fb22f7b6fe87f69254c7d60a8d3aa2', 412);
INSERT INTO public.artifact VALUES ('33cd2be21fe7dd8b0bcfca6f3b3e1703fb08f89de010fac5e8970634b93ee665', 6586);
INSERT INTO public.artifact VALUES ('346f3187435ac2799f65cf95624d6e713f7370675208cf6c7601d051f7585640', 192);
INSERT INTO public.artifact VALUES ('fcdf0ba266c3cbc66ca9038ae28a9a9c9d1ce5465bd928c54f668be19321117b', 869);
INSERT INTO public.artifact VALUES ('0c2c80918c28ef29f9b9af814292241b1e00951d7fff41a73480aea1c04a52c5', 8030);
INSERT INTO public.artifact VALUES ('f1298bc12a525deb59c40e067edd22591af872d4cf9adfbd3a645cf36dbca843', 916);
INSERT INTO public.artifact VALUES ('5fc864471d9e8bb3b36fcdb1b38d86cf6dc53483b6b1ba9242a216b83c8d23f6', 923);
INSERT INTO public.artifact VALUES ('b35f627b148e39c8a9d6f7537135ee32e2759c738d66edace6e9b42920763466', 7796);
INSERT INTO public.artifact VALUES ('1ce92a18fb2e9e566666fb10ff632b307def4afa5cb6d0a41707bc09ee65079e', 187);
INSERT INTO public.artifact VALUES ('1089d1261af0298d1a717e324afd239e355948d7383df9023efde7ebcfeddf50', 707);
INSERT INTO public.artifact VALUES ('86caa65e1fda112f5c52836e8673a32a47aa7e8f72b3ca91ef955517a96b1e73', 415);
INSERT INTO public.artifact VALUES ('391bb81f60c29b86aa1bd25ab44a85259f05dfdcc5d5ba4611790e6bb0731654', 193);
INSERT INTO public.artifact VALUES ('969ce75e3a42b97e1941bd7362388af47227b2f3954051322740359eec405915', 412);
INSERT INTO public.artifact VALUES ('fbf46367981d1634b2a1d4c5f61a6dcc5ab1bba4978efca3d2632e7121a1e928', 1719);
INSERT INTO public.artifact VALUES ('b29baff7d6e7ddfaa452bbef15221ca0903d0223a419f3ed7372a5bce948c1ba', 192);
INSERT INTO public.artifact VALUES ('254ef5356c0e5c9cf046062b4a1f6c81ea546f7f8a846676c3156a293c94428d', 1719);
INSERT INTO public.artifact VALUES ('bd6c2f87659f75438aacd5bea6ebb1fdcf0c890a4ad560e9546b901ea8ae253f', 412);
INSERT INTO public.artifact VALUES ('ecdcfe80e3e6d88a9987632232db69fcea242af90736db550cb2198369a7387c', 192);
INSERT INTO public.artifact VALUES ('9a3c58db59b88c0f91aa3e5f25950a613d07ba977cb1d9b134c7c3c4c2fa0d42', 171);
INSERT INTO public.artifact VALUES ('e402327646e9981544bff593de0659be3408d2f4f7e903556d86930603ff0265', 6826);
INSERT INTO public.artifact VALUES ('3ead5918b63f7e10c0942bcee393afb1ef8f82b7f61703f31601baab78daee4e', 865);
INSERT INTO public.artifact VALUES ('9ab2a883beec31fcaadf597f793b7670f1ddb368d6f201970d002e28cf6ea412', 6899);
INSERT INTO public.artifact VALUES ('18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 6656);
INSERT INTO public.artifact VALUES ('497697562273748811d473ea9d35b46dcf149ea82cbf36f50ff5ca718773f90d', 154);
INSERT INTO public.artifact VALUES ('b346b5d4defba972756bd102672dbdf97650d9764949aef18a65ca8b9e3ad78e', 154);
INSERT INTO public.artifact VALUES ('000c59e79e4b857ca41b71b916703f268054cd833296ba84466ee136b2eaae74', 6701);
INSERT INTO public.artifact VALUES ('95f1e2ac6e9a07cde50fbecaa6ce24c0b059fb36abf2fda897d5b84ded8596ea', 891);
INSERT INTO public.artifact VALUES ('29e0d6d59668d6cfca1f42d4f84c67fe2f241a642d22359d0a2b301acb235307', 169);
INSERT INTO public.artifact VALUES ('7b0a16c06330538c269e56961596795ab97fcfa954f028fc1731ee6d9ea3160c', 891);
INSERT INTO public.artifact VALUES ('b3d59ac72095879102c553959825c580275b1e2f2702dd2bb568ca0f4082bb4a', 6701);
INSERT INTO public.artifact VALUES ('f4f92f010f9d86780eef776138960f20eb33196656f7bb8963b1c31212dc45a2', 8204);
INSERT INTO public.artifact VALUES ('9780295e68a70d429f3f5b030ac343c9338bcc10d404dd5358809c04d939d6f9', 8209);
INSERT INTO public.artifact VALUES ('9cfa6088c3bd5d7c20bb6f817de96ab9bfb99633e13c0644798469a35bd66ccb', 909);
INSERT INTO public.artifact VALUES ('aa26fcde1547425eeb9d94820e1d3beaa17f8230be3826e28bb42a5762b029c3', 890);
INSERT INTO public.artifact VALUES ('2800a55c468fec0ac0fe57c520621f0f502791c35eb94dffa50e895061b298bf', 2079);
INSERT INTO public.artifact VALUES ('b95193d303cb51cf174245190c93f06ee9fecec8e89124354b6a3556707fecda', 533);
INSERT INTO public.artifact VALUES ('f61d6392304b8cdb9f2721e8f03deeae7e0b4994cb0ac1039eb72ea57c60ca25', 6277);
INSERT INTO public.artifact VALUES ('f24e15a2d87cf3769dff739a716764574ad34ed8eab63473dd9d3da93a415838', 305);
INSERT INTO public.artifact VALUES ('0b517a48988a876f29df1bd07712658bbcbfcfc9de840eed0c1483b5d9238e4c', 8641);
INSERT INTO public.artifact VALUES ('75affcf817e559b0d8ed916cce665823793717959e59c3fdb32437def1954506', 928);
INSERT INTO public.artifact VALUES ('9892d3e32ec6f5d0d632c0fdb81b1e84c746497d60f064a8695a6f926b62171b', 3757);
INSERT INTO public.artifact VALUES ('d8b4e39c31085efe2bbaccc826ee43186705e48f5489822e5faa0f9e54bdfefe', 9891);
INSERT INTO public.artifact VALUES ('f6d1765cb82e2552a1e2d888204886ab1dc66e37238a3a4df8b3fa6555064e2d', 6720);
INSERT INTO public.artifact VALUES ('92843c40aa64ff316a2acb26de13ffd14404177bd2412e778d2c7a7f099a2ddb', 452);
INSERT INTO public.artifact VALUES ('43fabcf2ee57268bca3b28fdfd2eaeb3a54f3b8faec36a7fe8c53bb801067bd0', 533);
INSERT INTO public.artifact VALUES ('73831e12c02e04d0970c591e6db7ef4449c9843dc6d39faa11a50f80fd1a9150', 2079);
INSERT INTO public.artifact VALUES ('e65c81988086824ca0144cb728c5133801dc73df5140ca13c7170bcf6aefdff7', 6277);
INSERT INTO public.artifact VALUES ('01643e17dd98def3210e9f60b6893310cffc69c025a3a201456198a6f4af4846', 305);
INSERT INTO public.artifact VALUES ('1708e620e61bbfb702f28962b30257b1b5eea6af7395f60bc130022692858bb5', 6708);
INSERT INTO public.artifact VALUES ('99147b29860fd12fcba9e818a0ff7e4f10f4e016b407aa352881e5d1b0df212f', 181);
INSERT INTO public.artifact VALUES ('f32bc68437a35e8b91cba53a3e65792ba34b52e6a6604ebc41692c0c88b86e15', 154);
INSERT INTO public.artifact VALUES ('2fb8295403752edf8d33e8d6ed8903f425c7b1a6c96961df25a82a98221f5413', 872);
INSERT INTO public.artifact VALUES ('9b88cfb2e6fe7fc03d6bc013289bf5a06ed49a5f46c41dfb77836e67706af901', 6770);
INSERT INTO public.artifact VALUES ('abd9f2aa2bb233f364342a56ed8d091f46fbaf68caf5dac5caa501bb764378b3', 891);
INSERT INTO public.artifact VALUES ('ef2e084b8e5aa7b292a1e06ae6e39f5b956aace3a2db2d688f1926abe4373e27', 6701);
INSERT INTO public.artifact VALUES ('d9cf01ff0b2c6367a9d4c18334928b5154370dc5db0644fa687f96282c1bb266', 1439);
INSERT INTO public.artifact VALUES ('fa01cc8500d65425dc7816e284099a6319d0c9c4ab743d63bdd657a13acb9ac2', 420);
INSERT INTO public.artifact VALUES ('0e7115103defbf4dbe8aa4a48300b6fc2d330682ff840957f670ce2c1f99a32a', 533);
INSERT INTO public.artifact VALUES ('7d3f6067f27a275b2646f2d2e6343e5877ceedab673452aef40ee5251bde0c28', 6278);
INSERT INTO public.artifact VALUES ('d8eb7d62be1e58d5df4474accd7ba9e7be691fd608a5435dcffd8edb2ac885ae', 2079);
INSERT INTO public.artifact VALUES ('a5309fda3142efc7c72b99c106eb1bc1baae748e77dd6fe33d7b4b36bfbf9745', 154);
INSERT INTO public.artifact VALUES ('8e9c391374764b443cdb601b7e1d54f67e47e5ea76ca6b723f9ae8945b01283e', 892);
INSERT INTO public.artifact VALUES ('edea0136bdef80f468a15eb16002de5b0aae3b6a0cc05ab2f31da279ad316316', 6703);
INSERT INTO public.artifact VALUES ('25c03f50ae5fbc132dc748b36cc709beba29e06220dd0f413a7e14cf2812b70f', 154);
INSERT INTO public.artifact VALUES ('57e6c825ce97ccee842716ed04f7ced9fd3dc77722b0cd50450e5e39ed9e94b2', 891);
INSERT INTO public.artifact VALUES ('f2eb80894d45d7207adb2b1d0787a8aa5b480394ddaab9868c6bab8301ce905e', 6701);
INSERT INTO public.artifact VALUES ('cc2e22f23563599f52f5960a6fdb8c46f4db6ba3a0384fb30d9e68ff590d7b88', 154);
INSERT INTO public.artifact VALUES ('5c4b59e01e86df54d3b91a73b04ad5632281033799264691189fe0d240a08dd8', 891);
INSERT INTO public.artifact VALUES ('9d9f896ac3d90e2038df8756d0fdbb22ee0cc7178b17dc23e8c7c75ce7cd3ca2', 6701);
INSERT INTO public.artifact VALUES ('23f1d39d7f24e59447dc20ad6cae1a16deab2b41f46b090142eb0b8f21bd751a', 154);
INSERT INTO public.artifact VALUES ('dc98c4305fbb8a13fb56759d7c116c3aaf1b595b209f289e5bb8cd6051a82a2d', 6701);
INSERT INTO public.artifact VALUES ('e0e86bd750600f9646089d3e1b79f084bea865fc94018ab6b595e41f4047340e', 891);
INSERT INTO public.artifact VALUES ('d806ae1a32dc1a50a56de618eecbd15982832b94d7fd95d42c9060a06a5cb792', 154);
INSERT INTO public.artifact VALUES ('499cb37125a4d1f51ee1079fef765f3b1aa40a314b90980b8d106369bafc08db', 6701);
INSERT INTO public.artifact VALUES ('b326619d0105dfa0a25e7f5948326bd6b85602812352d53f0e82ec1517fa9260', 891);


--
-- Data for Name: attempt; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.attempt VALUES (1, 1, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:00.510057+00', '2026-11-27 19:48:00.510057+00', '2026-11-27 19:48:00.551866+00', '2026-11-27 19:48:00.558307+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (2, 2, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:00.510057+00', '2026-11-27 19:48:00.57332+00', '2026-11-27 19:48:00.582226+00', '2026-11-27 19:48:05.188213+00', '[{"name":"template","seconds":4.4225},{"name":"rpmbuild","seconds":0.0525},{"name":"collect","seconds":0.0991}]', 3530752, 'ed367fe74e7d65433efc35fdeb24261c559490124afa6595550190a9af63ad15');
INSERT INTO public.attempt VALUES (3, 3, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:00.57332+00', '2026-11-27 19:48:00.57332+00', '2026-11-27 19:48:00.596301+00', '2026-11-27 19:48:00.806624+00', '[{"name":"git","seconds":0.1037},{"name":"sources","seconds":0.0231},{"name":"pack","seconds":0.0025}]', NULL, NULL);
INSERT INTO public.attempt VALUES (4, 4, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:00.57332+00', '2026-11-27 19:48:00.809902+00', '2026-11-27 19:48:00.84004+00', '2026-11-27 19:48:05.169333+00', '[{"name":"template","seconds":4.1722},{"name":"rpmbuild","seconds":0.0369},{"name":"collect","seconds":0.0914}]', 3280896, '25d89b45248f4481fe60885ab17cbb2b5168bef79eedf6afb2564a3333b07e97');
INSERT INTO public.attempt VALUES (5, 5, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:00.57332+00', '2026-11-27 19:48:00.57332+00', '2026-11-27 19:48:00.826802+00', '2026-11-27 19:48:00.83048+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (6, 6, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:00.57332+00', '2026-11-27 19:48:00.832511+00', '2026-11-27 19:48:05.173951+00', '2026-11-27 19:48:05.342795+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.05},{"name":"collect","seconds":0.1069}]', 3244032, NULL);
INSERT INTO public.attempt VALUES (7, 7, 1, '', 'finished', 'succeeded', NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:05.173127+00', '2026-11-27 19:48:05.173127+00', '2026-11-27 19:48:05.212763+00', '2026-11-27 19:48:05.64271+00', '[{"name":"template","seconds":0.0022},{"name":"layer","seconds":0.0001},{"name":"rpmbuild","seconds":0.2568},{"name":"collect","seconds":0.1141}]', 9093120, NULL);
INSERT INTO public.attempt VALUES (8, 8, 1, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:05.173127+00', '2026-11-27 19:48:05.645681+00', '2026-11-27 19:48:05.663722+00', '2026-11-27 19:48:05.752052+00', '[{"name":"download","seconds":0.0008},{"name":"publish","seconds":0.071}]', NULL, NULL);
INSERT INTO public.attempt VALUES (9, 9, 1, '', 'finished', 'succeeded', NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:05.23577+00', '2026-11-27 19:48:05.23577+00', '2026-11-27 19:48:05.659529+00', '2026-11-27 19:48:06.076669+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.2991},{"name":"collect","seconds":0.1051}]', 8912896, '41b4d857d69dd269103d502054ce93e8e24ceeae63d069bcc59f887fe4af0286');
INSERT INTO public.attempt VALUES (10, 10, 1, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:05.23577+00', '2026-11-27 19:48:06.078062+00', '2026-11-27 19:48:06.085798+00', '2026-11-27 19:48:06.168807+00', '[{"name":"download","seconds":0.0004},{"name":"publish","seconds":0.0695}]', NULL, NULL);
INSERT INTO public.attempt VALUES (11, 11, 1, '', 'finished', 'succeeded', NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:05.645681+00', '2026-11-27 19:48:05.645681+00', '2026-11-27 19:48:06.095094+00', '2026-11-27 19:48:06.382108+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.1824},{"name":"collect","seconds":0.0925}]', 6524928, NULL);
INSERT INTO public.attempt VALUES (12, 12, 1, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:05.645681+00', '2026-11-27 19:48:06.383398+00', '2026-11-27 19:48:06.391198+00', '2026-11-27 19:48:06.431243+00', '[{"name":"download","seconds":0.0003},{"name":"publish","seconds":0.0356}]', NULL, NULL);
INSERT INTO public.attempt VALUES (13, 13, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.453805+00', '2026-11-27 19:48:06.453805+00', '2026-11-27 19:48:06.460231+00', '2026-11-27 19:48:06.464781+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (14, 14, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.453805+00', '2026-11-27 19:48:06.468599+00', '2026-11-27 19:48:06.473407+00', '2026-11-27 19:48:06.650057+00', '[{"name":"template","seconds":0.0004},{"name":"rpmbuild","seconds":0.0552},{"name":"collect","seconds":0.1058}]', 3264512, NULL);
INSERT INTO public.attempt VALUES (15, 15, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.48393+00', '2026-11-27 19:48:06.48393+00', '2026-11-27 19:48:06.489687+00', '2026-11-27 19:48:06.504367+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (16, 16, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.48393+00', '2026-11-27 19:48:06.511752+00', '2026-11-27 19:48:06.522611+00', '2026-11-27 19:48:06.714304+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0557},{"name":"collect","seconds":0.117}]', 3276800, NULL);
INSERT INTO public.attempt VALUES (17, 17, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.500379+00', '2026-11-27 19:48:06.500379+00', '2026-11-27 19:48:06.508632+00', '2026-11-27 19:48:06.516953+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (18, 18, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.500379+00', '2026-11-27 19:48:06.52879+00', '2026-11-27 19:48:06.660045+00', '2026-11-27 19:48:06.878541+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0484},{"name":"collect","seconds":0.137}]', 3276800, NULL);
INSERT INTO public.attempt VALUES (19, 23, 1, '', 'finished', 'failed', 'FAIL: test_answer', '[farm] build of fails-check for demo, attempt 4.build.x86_64.1
[farm] phase template
[farm] phase layer
[farm] phase rpmbuild
[farm] $ rpmbuild --rebuild --define ''dist .demo1'' --define ''_topdir /builddir/build'' --define ''_rpmdir /builddir/results'' --define ''_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm'' --define ''_srcrpmdir /builddir/out'' --define ''_dbpath /var/lib/rpm'' --with extras fails-check-1.0-1.dem…
warning: source_date_epoch_from_changelog set but %changelog is missing
Installing /builddir/in/source.src.rpm
Executing(%install): /bin/sh -e /var/tmp/rpm-tmp.nQ3y9b
+ umask 022
+ cd /builddir/build/BUILD
+ /bin/rm -rf /builddir/build/BUILDROOT/fails-check-1.0-1.demo1.x86_64
+ /bin/mkdir -p /builddir/build/BUILDROOT
+ /bin/mkdir /builddir/build/BUILDROOT/fails-check-1.0-1.demo1.x86_64
+ mkdir -p /builddir/build/BUILDROOT/fails-check-1.0-1.demo1.x86_64/usr/share
+ echo 41
+ /usr/bin/find-debuginfo -j2 --strict-build-id --build-id-seed 1.0-1.demo1 --unique-debug-suffix -1.0-1.demo1.x86_64 --unique-debug-src-base fails-check-1.0-1.demo1.x86_64 -S debugsourcefiles.list /builddir/build/BUILD/
+ /usr/lib/rpm/brp-compress /usr
+ /usr/lib/rpm/brp-strip-static-archive /usr/bin/strip
Executing(%check): /bin/sh -e /var/tmp/rpm-tmp.cfNSTO
+ umask 022
+ cd /builddir/build/BUILD
+ echo ''PASS: test_exists''
PASS: test_exists
+ grep -qx 42 /builddir/build/BUILDROOT/fails-check-1.0-1.demo1.x86_64/usr/share/fails-check
+ echo ''FAIL: test_answer''
FAIL: test_answer
+ exit 1
error: Bad exit status from /var/tmp/rpm-tmp.cfNSTO (%check)

RPM build warnings:
    source_date_epoch_from_changelog set but %changelog is missing

RPM build errors:
    Bad exit status from /var/tmp/rpm-tmp.cfNSTO (%check)
[farm] rpmbuild exited with code 1 after 0.13 s', 'build@base', 600, '2026-11-27 19:48:06.651772+00', '2026-11-27 19:48:06.651772+00', '2026-11-27 19:48:06.66996+00', '2026-11-27 19:48:06.850879+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.1346}]', 7974912, NULL);
INSERT INTO public.attempt VALUES (21, 19, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.651772+00', '2026-11-27 19:48:06.651772+00', '2026-11-27 19:48:06.725335+00', '2026-11-27 19:48:06.732609+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (22, 20, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.651772+00', '2026-11-27 19:48:06.760739+00', '2026-11-27 19:48:06.770098+00', '2026-11-27 19:48:06.975038+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0563},{"name":"collect","seconds":0.1268}]', 3551232, NULL);
INSERT INTO public.attempt VALUES (23, 21, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:06.715405+00', '2026-11-27 19:48:06.715405+00', '2026-11-27 19:48:06.736642+00', '2026-11-27 19:48:06.747088+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (24, 22, 1, '', 'finished', 'failed', 'ann published the source package hello-c of target demo first, and has the name; rename yours, build for a target of your own, or have an administrator release the names (docs/operating.md)', NULL, 'source@base', 1800, '2026-11-27 19:48:06.715405+00', '2026-11-27 19:48:06.760739+00', '2026-11-27 19:48:06.888799+00', '2026-11-27 19:48:07.089789+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0691},{"name":"collect","seconds":0.1181}]', 3350528, 'b2a14cffb179d3b2323eee8de429654f43c149005b8569c4499b4114907436d4');
INSERT INTO public.attempt VALUES (25, 24, 2, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:06.852909+00', '2026-11-27 19:48:06.852909+00', '2026-11-27 19:48:06.881619+00', '2026-11-27 19:48:06.901816+00', '[{"name":"download","seconds":0.0},{"name":"publish","seconds":0.0148}]', NULL, NULL);
INSERT INTO public.attempt VALUES (26, 27, 1, '', 'finished', 'unresolvable', 'nothing provides no-such-library-devel >= 4.2', NULL, 'build@base', 1800, '2026-11-27 19:48:06.91016+00', '2026-11-27 19:48:06.91016+00', '2026-11-27 19:48:06.935163+00', '2026-11-27 19:48:07.182758+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.2412}]', NULL, '826fbd53e5bc1c1269bc31183099bbc49f32aae0eec10ce811b423479efa2a48');
INSERT INTO public.attempt VALUES (53, 45, 2, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:14.229381+00', '2026-11-27 19:48:14.793486+00', '2026-11-27 19:48:14.802062+00', '2026-11-27 19:48:14.819928+00', '[{"name":"download","seconds":0.0003},{"name":"publish","seconds":0.0152}]', NULL, NULL);
INSERT INTO public.attempt VALUES (54, 48, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:17.172409+00', '2026-11-27 19:48:17.172409+00', '2026-11-27 19:48:17.182204+00', '2026-11-27 19:48:17.18572+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (55, 49, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:17.172409+00', '2026-11-27 19:48:17.192178+00', '2026-11-27 19:48:17.199585+00', '2026-11-27 19:48:17.352802+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0504},{"name":"collect","seconds":0.0911}]', 3276800, NULL);
INSERT INTO public.attempt VALUES (28, 29, 1, '', 'finished', 'failed', 'broken.c:3:12: error: ‘undeclared_name’ undeclared (first use in this function)', '[farm] phase template
[farm] phase layer
[farm] phase rpmbuild
[farm] $ rpmbuild --rebuild --define ''dist .demo1'' --define ''_topdir /builddir/build'' --define ''_rpmdir /builddir/results'' --define ''_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm'' --define ''_srcrpmdir /builddir/out'' --define ''_dbpath /var/lib/rpm'' fails-build-1.0-1.demo1.src.rpm
warning: source_date_epoch_from_changelog set but %changelog is missing
Installing /builddir/in/source.src.rpm
Executing(%prep): /bin/sh -e /var/tmp/rpm-tmp.98lYw8
+ umask 022
+ cd /builddir/build/BUILD
+ cd /builddir/build/BUILD
+ rm -rf fails-build-1.0
+ /bin/mkdir -p fails-build-1.0
+ cd fails-build-1.0
+ /bin/chmod -Rf a+rX,u+w,g-w,o-w .
+ cp -p /builddir/build/SOURCES/broken.c /builddir/build/SOURCES/Makefile .
+ RPM_EC=0
++ jobs -p
+ exit 0
Executing(%build): /bin/sh -e /var/tmp/rpm-tmp.8mfAFz
+ umask 022
+ cd /builddir/build/BUILD
+ cd fails-build-1.0
+ make
cc -o broken broken.c
broken.c: In function ‘main’:
broken.c:3:12: error: ‘undeclared_name’ undeclared (first use in this function)
    3 |     return undeclared_name;
      |            ^~~~~~~~~~~~~~~
broken.c:3:12: note: each undeclared identifier is reported only once for each function it appears in
make: *** [Makefile:2: broken] Error 1
error: Bad exit status from /var/tmp/rpm-tmp.8mfAFz (%build)

RPM build warnings:
    source_date_epoch_from_changelog set but %changelog is missing

RPM build errors:
    Bad exit status from /var/tmp/rpm-tmp.8mfAFz (%build)
[farm] rpmbuild exited with code 1 after 0.06 s', 'build@base', 1800, '2026-11-27 19:48:06.976059+00', '2026-11-27 19:48:06.976059+00', '2026-11-27 19:48:07.190071+00', '2026-11-27 19:48:07.266304+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.0646}]', 7118848, NULL);
INSERT INTO public.attempt VALUES (30, 31, 1, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:07.091568+00', '2026-11-27 19:48:07.091568+00', '2026-11-27 19:48:07.10365+00', '2026-11-27 19:48:07.112836+00', '[{"name":"download","seconds":0.0},{"name":"publish","seconds":0.0056}]', NULL, NULL);
INSERT INTO public.attempt VALUES (31, 28, 2, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:07.183953+00', '2026-11-27 19:48:07.183953+00', '2026-11-27 19:48:07.200405+00', '2026-11-27 19:48:07.209427+00', '[{"name":"download","seconds":0.0},{"name":"publish","seconds":0.0053}]', NULL, NULL);
INSERT INTO public.attempt VALUES (32, 30, 2, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:07.267504+00', '2026-11-27 19:48:07.267504+00', '2026-11-27 19:48:07.275583+00', '2026-11-27 19:48:07.28455+00', '[{"name":"download","seconds":0.0},{"name":"publish","seconds":0.0049}]', NULL, NULL);
INSERT INTO public.attempt VALUES (33, 29, 2, '', 'finished', 'failed', 'broken.c:3:12: error: ‘undeclared_name’ undeclared (first use in this function)', '[farm] phase template
[farm] phase layer
[farm] phase rpmbuild
[farm] $ rpmbuild --rebuild --define ''dist .demo1'' --define ''_topdir /builddir/build'' --define ''_rpmdir /builddir/results'' --define ''_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm'' --define ''_srcrpmdir /builddir/out'' --define ''_dbpath /var/lib/rpm'' fails-build-1.0-1.demo1.src.rpm
warning: source_date_epoch_from_changelog set but %changelog is missing
Installing /builddir/in/source.src.rpm
Executing(%prep): /bin/sh -e /var/tmp/rpm-tmp.WwcC03
+ umask 022
+ cd /builddir/build/BUILD
+ cd /builddir/build/BUILD
+ rm -rf fails-build-1.0
+ /bin/mkdir -p fails-build-1.0
+ cd fails-build-1.0
+ /bin/chmod -Rf a+rX,u+w,g-w,o-w .
+ cp -p /builddir/build/SOURCES/broken.c /builddir/build/SOURCES/Makefile .
+ RPM_EC=0
++ jobs -p
+ exit 0
Executing(%build): /bin/sh -e /var/tmp/rpm-tmp.3AQdHO
+ umask 022
+ cd /builddir/build/BUILD
+ cd fails-build-1.0
+ make
cc -o broken broken.c
broken.c: In function ‘main’:
broken.c:3:12: error: ‘undeclared_name’ undeclared (first use in this function)
    3 |     return undeclared_name;
      |            ^~~~~~~~~~~~~~~
broken.c:3:12: note: each undeclared identifier is reported only once for each function it appears in
make: *** [Makefile:2: broken] Error 1
error: Bad exit status from /var/tmp/rpm-tmp.3AQdHO (%build)

RPM build warnings:
    source_date_epoch_from_changelog set but %changelog is missing

RPM build errors:
    Bad exit status from /var/tmp/rpm-tmp.3AQdHO (%build)
[farm] rpmbuild exited with code 1 after 0.06 s', 'build@base', 1800, '2026-11-27 19:48:07.300003+00', '2026-11-27 19:48:07.300003+00', '2026-11-27 19:48:07.308865+00', '2026-11-27 19:48:07.384533+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0001},{"name":"rpmbuild","seconds":0.0642}]', 7106560, NULL);
INSERT INTO public.attempt VALUES (34, 30, 4, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:07.385796+00', '2026-11-27 19:48:07.385796+00', '2026-11-27 19:48:07.396941+00', '2026-11-27 19:48:07.406088+00', '[{"name":"download","seconds":0.0001},{"name":"publish","seconds":0.0031}]', NULL, NULL);
INSERT INTO public.attempt VALUES (35, 32, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:07.433824+00', '2026-11-27 19:48:07.433824+00', '2026-11-27 19:48:07.439254+00', '2026-11-27 19:48:07.443138+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (36, 33, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:07.433824+00', '2026-11-27 19:48:07.444599+00', '2026-11-27 19:48:07.45003+00', '2026-11-27 19:48:07.592285+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0406},{"name":"collect","seconds":0.0887}]', 3530752, NULL);
INSERT INTO public.attempt VALUES (37, 34, 1, '', 'finished', 'cancelled', 'cancelled by tester', NULL, 'build@base', 1800, '2026-11-27 19:48:07.593554+00', '2026-11-27 19:48:07.593554+00', '2026-11-27 19:48:07.983729+00', '2026-11-27 19:48:08.484711+00', NULL, NULL, 'ae5694b93a8fb09a992675be5ae938aa860a3b26ccc0ccafee6b6a1fdf3e399d');
INSERT INTO public.attempt VALUES (39, 36, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:08.010641+00', '2026-11-27 19:48:08.010641+00', '2026-11-27 19:48:08.019004+00', '2026-11-27 19:48:08.022878+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (40, 37, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:08.010641+00', '2026-11-27 19:48:08.02642+00', '2026-11-27 19:48:08.029844+00', '2026-11-27 19:48:08.195777+00', '[{"name":"template","seconds":0.0004},{"name":"rpmbuild","seconds":0.055},{"name":"collect","seconds":0.1006}]', 3145728, NULL);
INSERT INTO public.attempt VALUES (41, 38, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:08.040032+00', '2026-11-27 19:48:08.040032+00', '2026-11-27 19:48:08.047803+00', '2026-11-27 19:48:08.051741+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (42, 39, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:08.040032+00', '2026-11-27 19:48:08.05656+00', '2026-11-27 19:48:08.062376+00', '2026-11-27 19:48:08.21137+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0323},{"name":"collect","seconds":0.1025}]', 3547136, NULL);
INSERT INTO public.attempt VALUES (43, 40, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:08.05656+00', '2026-11-27 19:48:08.05656+00', '2026-11-27 19:48:08.206144+00', '2026-11-27 19:48:08.212741+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (44, 41, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:08.05656+00', '2026-11-27 19:48:08.224705+00', '2026-11-27 19:48:08.230316+00', '2026-11-27 19:48:08.373+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0452},{"name":"collect","seconds":0.0862}]', 3538944, NULL);
INSERT INTO public.attempt VALUES (45, 42, 1, '', 'finished', 'errored', 'store-trouble: no space left on the device', NULL, 'build@sick', 1800, '2026-11-27 19:48:08.197338+00', '2026-11-27 19:48:08.197338+00', '2026-11-27 19:48:08.205773+00', '2026-11-27 19:48:08.205773+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (46, 44, 1, '', 'finished', 'errored', 'store-trouble: no space left on the device', NULL, 'build@sick', 1800, '2026-11-27 19:48:08.224705+00', '2026-11-27 19:48:08.224705+00', '2026-11-27 19:48:08.238689+00', '2026-11-27 19:48:08.238689+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (47, 46, 1, '', 'finished', 'errored', 'store-trouble: no space left on the device', NULL, 'build@sick', 1800, '2026-11-27 19:48:08.37461+00', '2026-11-27 19:48:08.37461+00', '2026-11-27 19:48:08.380683+00', '2026-11-27 19:48:08.380683+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (48, 42, 2, '', 'finished', 'succeeded', NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:14.017681+00', '2026-11-27 19:48:14.017681+00', '2026-11-27 19:48:14.029855+00', '2026-11-27 19:48:14.228096+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.1054},{"name":"collect","seconds":0.0862}]', 10448896, NULL);
INSERT INTO public.attempt VALUES (49, 43, 2, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:14.017681+00', '2026-11-27 19:48:14.229381+00', '2026-11-27 19:48:14.239421+00', '2026-11-27 19:48:14.261465+00', '[{"name":"download","seconds":0.0003},{"name":"publish","seconds":0.0196}]', NULL, NULL);
INSERT INTO public.attempt VALUES (50, 46, 2, '', 'finished', 'succeeded', NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:14.017681+00', '2026-11-27 19:48:14.017681+00', '2026-11-27 19:48:14.234347+00', '2026-11-27 19:48:14.551382+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.2075},{"name":"collect","seconds":0.1006}]', 9527296, NULL);
INSERT INTO public.attempt VALUES (51, 47, 2, '', 'finished', 'succeeded', NULL, NULL, 'publish@base', 1800, '2026-11-27 19:48:14.017681+00', '2026-11-27 19:48:14.55299+00', '2026-11-27 19:48:14.559789+00', '2026-11-27 19:48:14.591383+00', '[{"name":"download","seconds":0.0006},{"name":"publish","seconds":0.0274}]', NULL, NULL);
INSERT INTO public.attempt VALUES (52, 44, 2, '', 'finished', 'succeeded', NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:14.229381+00', '2026-11-27 19:48:14.229381+00', '2026-11-27 19:48:14.557394+00', '2026-11-27 19:48:14.792241+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.1419},{"name":"collect","seconds":0.0859}]', 10379264, NULL);
INSERT INTO public.attempt VALUES (56, 50, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:17.214512+00', '2026-11-27 19:48:17.214512+00', '2026-11-27 19:48:17.226175+00', '2026-11-27 19:48:17.232639+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (57, 51, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:17.214512+00', '2026-11-27 19:48:17.233352+00', '2026-11-27 19:48:17.242271+00', '2026-11-27 19:48:17.389809+00', '[{"name":"template","seconds":0.0006},{"name":"rpmbuild","seconds":0.0288},{"name":"collect","seconds":0.1132}]', 3268608, NULL);
INSERT INTO public.attempt VALUES (58, 52, 1, '', 'finished', 'failed', 'install: cannot stat ''never-made.txt'': No such file or directory', '[farm] build of fails-install for demo, attempt 13.build.x86_64.1
[farm] phase template
[farm] phase layer
[farm] phase rpmbuild
[farm] $ rpmbuild --rebuild --define ''dist .demo1'' --define ''_topdir /builddir/build'' --define ''_rpmdir /builddir/results'' --define ''_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm'' --define ''_srcrpmdir /builddir/out'' --define ''_dbpath /var/lib/rpm'' fails-install-1.0-1.demo1.src.rpm
warning: source_date_epoch_from_changelog set but %changelog is missing
Installing /builddir/in/source.src.rpm
Executing(%install): /bin/sh -e /var/tmp/rpm-tmp.hYEyNO
+ umask 022
+ cd /builddir/build/BUILD
+ /bin/rm -rf /builddir/build/BUILDROOT/fails-install-1.0-1.demo1.x86_64
+ /bin/mkdir -p /builddir/build/BUILDROOT
+ /bin/mkdir /builddir/build/BUILDROOT/fails-install-1.0-1.demo1.x86_64
+ mkdir -p /builddir/build/BUILDROOT/fails-install-1.0-1.demo1.x86_64/usr/share
+ install -m 644 never-made.txt /builddir/build/BUILDROOT/fails-install-1.0-1.demo1.x86_64/usr/share/never-made.txt
install: cannot stat ''never-made.txt'': No such file or directory
error: Bad exit status from /var/tmp/rpm-tmp.hYEyNO (%install)

RPM build warnings:
    source_date_epoch_from_changelog set but %changelog is missing

RPM build errors:
    Bad exit status from /var/tmp/rpm-tmp.hYEyNO (%install)
[farm] rpmbuild exited with code 1 after 0.05 s', 'build@base', 1800, '2026-11-27 19:48:17.35408+00', '2026-11-27 19:48:17.35408+00', '2026-11-27 19:48:17.367111+00', '2026-11-27 19:48:17.432193+00', '[{"name":"template","seconds":0.0003},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.0572}]', 4321280, NULL);
INSERT INTO public.attempt VALUES (60, 54, 1, '', 'finished', 'succeeded', NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:17.391547+00', '2026-11-27 19:48:17.391547+00', '2026-11-27 19:48:17.435851+00', '2026-11-27 19:48:17.661439+00', '[{"name":"template","seconds":0.0002},{"name":"layer","seconds":0.0},{"name":"rpmbuild","seconds":0.1132},{"name":"collect","seconds":0.1025}]', 10625024, NULL);
INSERT INTO public.attempt VALUES (61, 55, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:17.391547+00', '2026-11-27 19:48:17.663653+00', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (62, 56, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:17.69509+00', '2026-11-27 19:48:17.69509+00', '2026-11-27 19:48:17.702402+00', '2026-11-27 19:48:17.705347+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (63, 57, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:17.69509+00', '2026-11-27 19:48:17.717536+00', '2026-11-27 19:48:17.722656+00', '2026-11-27 19:48:17.872407+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0396},{"name":"collect","seconds":0.1047}]', 3571712, NULL);
INSERT INTO public.attempt VALUES (64, 58, 1, '', 'running', NULL, NULL, NULL, 'build@base', 1800, '2026-11-27 19:48:17.873612+00', '2026-11-27 19:48:17.873612+00', '2026-11-27 19:48:18.04147+00', NULL, NULL, NULL, '25df479317ac4b555ef649d3476fd5c664eb30a25890708c2830bb92243f8234');
INSERT INTO public.attempt VALUES (65, 59, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:17.873612+00', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (66, 60, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:18.078543+00', '2026-11-27 19:48:18.078543+00', '2026-11-27 19:48:18.086381+00', '2026-11-27 19:48:18.090151+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (67, 61, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:18.078543+00', '2026-11-27 19:48:18.098439+00', '2026-11-27 19:48:18.102971+00', '2026-11-27 19:48:18.243316+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0438},{"name":"collect","seconds":0.0919}]', 3268608, NULL);
INSERT INTO public.attempt VALUES (68, 62, 1, '', 'running', NULL, NULL, NULL, 'build@old', 1800, '2026-11-27 19:48:18.244888+00', '2026-11-27 19:48:18.244888+00', '2026-11-27 19:48:19.046172+00', NULL, NULL, NULL, '3456a1b1e5dcb18b796b2c11fa1adf1893f39cdf8c5fe2458070e5d82249cdce');
INSERT INTO public.attempt VALUES (69, 63, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:18.244888+00', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (70, 64, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:19.347295+00', '2026-11-27 19:48:19.347295+00', '2026-11-27 19:48:19.354587+00', '2026-11-27 19:48:19.357543+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (71, 65, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:19.347295+00', '2026-11-27 19:48:19.364992+00', '2026-11-27 19:48:19.367415+00', '2026-11-27 19:48:19.492636+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0323},{"name":"collect","seconds":0.0861}]', 3297280, NULL);
INSERT INTO public.attempt VALUES (72, 66, 1, '', 'running', NULL, NULL, NULL, 'build@old', 1800, '2026-11-27 19:48:19.493875+00', '2026-11-27 19:48:19.493875+00', '2026-11-27 19:48:20.05373+00', NULL, NULL, NULL, 'f78de1068b0ac6a5cfb8d8ed3945345c80338f775b5f8eb560a1c04451d85801');
INSERT INTO public.attempt VALUES (73, 67, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:19.493875+00', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (74, 68, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:20.296021+00', '2026-11-27 19:48:20.296021+00', '2026-11-27 19:48:20.303189+00', '2026-11-27 19:48:20.305829+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (75, 69, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:20.296021+00', '2026-11-27 19:48:20.308429+00', '2026-11-27 19:48:20.311526+00', '2026-11-27 19:48:20.460748+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.05},{"name":"collect","seconds":0.0914}]', 3330048, NULL);
INSERT INTO public.attempt VALUES (76, 70, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:20.462009+00', '2026-11-27 19:48:20.462009+00', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (77, 71, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:20.462009+00', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (78, 72, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:20.49582+00', '2026-11-27 19:48:20.49582+00', '2026-11-27 19:48:20.502446+00', '2026-11-27 19:48:20.505117+00', NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (79, 73, 1, '', 'finished', 'succeeded', NULL, NULL, 'source@base', 1800, '2026-11-27 19:48:20.49582+00', '2026-11-27 19:48:20.512443+00', '2026-11-27 19:48:20.514593+00', '2026-11-27 19:48:20.652769+00', '[{"name":"template","seconds":0.0003},{"name":"rpmbuild","seconds":0.0438},{"name":"collect","seconds":0.0895}]', 3346432, NULL);
INSERT INTO public.attempt VALUES (80, 76, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:23.138658+00', '2026-11-27 19:48:23.138658+00', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (81, 77, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:23.138658+00', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (82, 78, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:23.165807+00', '2026-11-27 19:48:23.165807+00', NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.attempt VALUES (83, 79, 1, '', 'dispatched', NULL, NULL, NULL, NULL, 1800, '2026-11-27 19:48:23.165807+00', NULL, NULL, NULL, NULL, NULL, NULL);


--
-- Data for Name: attempt_artifact; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.attempt_artifact VALUES (1, 0, 'hello-c-1.0-1.src.rpm', 'srpm', '5745e133727c3f4cc11d0d6cb81dcc7aa4a939ad8d42daff1708f3e2709c212a', 'hello-c-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (1, 1, 'fetch.log', 'log', '469d20d0e3a2ba5a8198b00f540c7b6174c1a8eecd8c882a5b4f24e418ab87c8', NULL);
INSERT INTO public.attempt_artifact VALUES (3, 0, 'libgreet-6122866debd1.tar', 'source', 'de459b70e63b998137dd2d883b3cd20a0d1e52ada074338c121672139a813223', NULL);
INSERT INTO public.attempt_artifact VALUES (3, 1, 'fetch.log', 'log', 'f8f8ced4a0058efddc0e674392958efece71940950f0c2dffa0e49e86fa9856e', NULL);
INSERT INTO public.attempt_artifact VALUES (5, 0, 'hello-noarch-1.0-1.src.rpm', 'srpm', '7f3e6e4adf3e153aa4382f1f9f86048f705083ce57d03031d71fe126be2fb996', 'hello-noarch-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (5, 1, 'fetch.log', 'log', '56e70ab9124d19379d65a310ec6b34f54b35ae4fe114091f3f417409b762de88', NULL);
INSERT INTO public.attempt_artifact VALUES (4, 0, 'libgreet-1.0-1.demo1.src.rpm', 'srpm', '38bd8dea4af63c74d38fc221cbae008038c454710541cfcfd2b0ef890d021a54', 'libgreet-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (4, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (4, 2, 'srpm.log', 'log', 'e6da7ed8a49cbdfb263a7ee462da418893471d231650554447358025aba03aec', NULL);
INSERT INTO public.attempt_artifact VALUES (4, 3, 'srpm.log.times.json', 'record', '451e9641dea29fd6da1890f44870cbe7f71a0b6305bce7e7c27fb47ac3348cc7', NULL);
INSERT INTO public.attempt_artifact VALUES (2, 0, 'hello-c-1.0-1.demo1.src.rpm', 'srpm', '94131261ab09f6901e1fee732ff7a17dcc0815fd8d545b557e10b7062247ae94', 'hello-c-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (2, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (2, 2, 'srpm.log', 'log', 'a8d13e50d142e6b58343589feb5847a4768d0ee909869f2e1ecc104d9d316cd0', NULL);
INSERT INTO public.attempt_artifact VALUES (2, 3, 'srpm.log.times.json', 'record', 'a273e05adfd872a4aea410e0b3cb3ecdabdac6c6863e291b4dd1649ff37fa918', NULL);
INSERT INTO public.attempt_artifact VALUES (6, 0, 'hello-noarch-1.0-1.demo1.src.rpm', 'srpm', '0af8807e1902616d64b1b6b1e7a193db28297def1cea4f09649895176058a01c', 'hello-noarch-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (6, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (6, 2, 'srpm.log', 'log', '20edd59e6ace23034ecb5a58a85fbbc5f2f992ff62fe6affc697a7407c721eb0', NULL);
INSERT INTO public.attempt_artifact VALUES (7, 0, 'libgreet-1.0-1.demo1.x86_64.rpm', 'rpm', '7702efb312b3a6bacdd5ffd2da15a66dd8e7afb774ee6d6e4ab3fd0cccca4f78', 'libgreet-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (7, 1, 'libgreet-debuginfo-1.0-1.demo1.x86_64.rpm', 'rpm', 'c0422c66cc6eff2d54c9c2b1e6645285994dc21f11bfd16a6ff54347fe8d0adc', 'libgreet-debuginfo-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (7, 2, 'libgreet-debugsource-1.0-1.demo1.x86_64.rpm', 'rpm', '04bca83ee7e54544233f13275b2bb4290f8325da6f406cb379a790e9844fa4bd', 'libgreet-debugsource-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (7, 3, 'libgreet-devel-1.0-1.demo1.x86_64.rpm', 'rpm', 'c91ab464a7e4a5cd3ff04ccf77c5bb56613496b8082243c6d7248b97d6e63126', 'libgreet-devel-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (7, 4, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (7, 5, 'provenance.json', 'record', '63b0a287be9326653a16c0dd735c93565d9d9784c8cc3140f1c3856c186ec2b8', NULL);
INSERT INTO public.attempt_artifact VALUES (7, 6, 'build.x86_64.log', 'log', '7aa0e373d2c985150f4fd39106e19271781f2d56fd215ad0e22c577136a8d7ee', NULL);
INSERT INTO public.attempt_artifact VALUES (8, 0, 'upload.log', 'log', 'fba595fca8232ef3a8cbf8212b637f10874ad503425f64c440ba9c6cba38c7e0', NULL);
INSERT INTO public.attempt_artifact VALUES (9, 0, 'hello-c-1.0-1.demo1.x86_64.rpm', 'rpm', 'd8233d642a986d6d1bae4a1ea39a6f729f26a8dc99906a93547616f5043c8aa5', 'hello-c-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (9, 1, 'hello-c-debuginfo-1.0-1.demo1.x86_64.rpm', 'rpm', 'd39e4f3959ef78dbfb6fd8f7c616763d2c45d28ea4ec2fb2504a1aeabc6ce133', 'hello-c-debuginfo-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (9, 2, 'hello-c-debugsource-1.0-1.demo1.x86_64.rpm', 'rpm', '6f89bc87e0e8b59d4473fdd88c6773ff2d17f473c34386444d64ccf06892cc3e', 'hello-c-debugsource-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (9, 3, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (9, 4, 'provenance.json', 'record', 'd78bd0e10b3a4b6e432bbbea89c1f093faa843409df9f0e76cc0469dc4fb66e6', NULL);
INSERT INTO public.attempt_artifact VALUES (9, 5, 'build.x86_64.log', 'log', '4ed0ac9783f78af813948f244b6cd2b19de6b2919c2bb52541214f989649574e', NULL);
INSERT INTO public.attempt_artifact VALUES (10, 0, 'upload.log', 'log', 'c55fb9e7b5ab66c9fb45bbabbe49d670d3403d4e90bfb77bb98c15bead0de7f8', NULL);
INSERT INTO public.attempt_artifact VALUES (11, 0, 'hello-noarch-1.0-1.demo1.noarch.rpm', 'rpm', '756a928f35466ad1089ed8cff9f839db25ec7e9b5ac99b2e2c06f5af1a76533c', 'hello-noarch-1.0-1.demo1.noarch');
INSERT INTO public.attempt_artifact VALUES (11, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (11, 2, 'provenance.json', 'record', 'a66c678ccacade2aa7d256c567cff8721e1893d27a24d120d19b97dbcad8804a', NULL);
INSERT INTO public.attempt_artifact VALUES (11, 3, 'build.x86_64.log', 'log', 'e7e7de4875d4ad28bb1d40eea48b0d2e9df0b69dc29e2d19849f103cdc3ffab6', NULL);
INSERT INTO public.attempt_artifact VALUES (12, 0, 'upload.log', 'log', '5d31a53b3beacac5a6f19aa70f7eadb95f04ae8eca77445588f5086a2547204e', NULL);
INSERT INTO public.attempt_artifact VALUES (13, 0, 'fails-check-1.0-1.src.rpm', 'srpm', '05627fb5d49a578b32f957730cb019386d539f3c2fe9663bded4459e5f0fd004', 'fails-check-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (13, 1, 'fetch.log', 'log', 'b0a7756dfe2184103317d300b2e9fb1571dc77a50c4ca23123d65fa94ac52923', NULL);
INSERT INTO public.attempt_artifact VALUES (15, 0, 'exclusivearch-other-1.0-1.src.rpm', 'srpm', 'b03e7d4e1e2188b1e5f468767bf84dd765029854ab9501451070f33400750ff5', 'exclusivearch-other-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (15, 1, 'fetch.log', 'log', '254fd5866dc8ad9a7581500bf5979166c849a2b44cda4bf06d5e524c87abc563', NULL);
INSERT INTO public.attempt_artifact VALUES (17, 0, 'unresolvable-1.0-1.src.rpm', 'srpm', 'd09e7e85e119056a7cad58db3b28727b5ce0257a250bd2d2c2fe4f1551b6ea65', 'unresolvable-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (17, 1, 'fetch.log', 'log', 'd962ae425a378c49e81dc9c19ca6f6aacf19bd42608f8e895da6f75a60bff1e2', NULL);
INSERT INTO public.attempt_artifact VALUES (14, 0, 'fails-check-1.0-1.demo1.src.rpm', 'srpm', '7b2f4e7d47ff880cec1966cf65a2b9654d591c93dd5dbe75c605adf655dc1b6c', 'fails-check-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (14, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (14, 2, 'srpm.log', 'log', '4d58bb590e520c9f924e30f34d7480562a6f9c012b883afc5b7d3f2b690a9a48', NULL);
INSERT INTO public.attempt_artifact VALUES (16, 0, 'exclusivearch-other-1.0-1.demo1.src.rpm', 'srpm', 'b1f3ccfe23c9d023eb08eb8873311b1baaecee15b97beb095465bbd1ece28d56', 'exclusivearch-other-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (16, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (16, 2, 'srpm.log', 'log', '27fa8c9cf9b640fb62d1ba73ef5cb775fd2dd55ce77d0c5977c0e2d1d522df80', NULL);
INSERT INTO public.attempt_artifact VALUES (21, 0, 'fails-build-1.0-1.src.rpm', 'srpm', '7fdd2588d6d23e674f77481c176795dd3cf3d7684febef812fbc8060c01e1a87', 'fails-build-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (21, 1, 'fetch.log', 'log', 'c11db3852beb24c8cdc3ccc9b0f44044ec2793981f6693556d30f81c7ceff576', NULL);
INSERT INTO public.attempt_artifact VALUES (23, 0, 'hello-c-1.0-1.src.rpm', 'srpm', '5745e133727c3f4cc11d0d6cb81dcc7aa4a939ad8d42daff1708f3e2709c212a', 'hello-c-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (23, 1, 'fetch.log', 'log', '6b9923f634370b0c4d1076fec1b757819186260e7a33a30ced6e9dbdb4a2810d', NULL);
INSERT INTO public.attempt_artifact VALUES (19, 0, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (19, 1, 'provenance.json', 'record', 'e43b2764794f647fcf73ba838021032c58fb22f7b6fe87f69254c7d60a8d3aa2', NULL);
INSERT INTO public.attempt_artifact VALUES (19, 2, 'build.x86_64.log', 'log', '2eff6f3d86daaec942cecdef536aafd84cac953d60e3d251ac93ce157d191a6d', NULL);
INSERT INTO public.attempt_artifact VALUES (18, 0, 'unresolvable-1.0-1.demo1.src.rpm', 'srpm', '33cd2be21fe7dd8b0bcfca6f3b3e1703fb08f89de010fac5e8970634b93ee665', 'unresolvable-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (18, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (18, 2, 'srpm.log', 'log', 'fcdf0ba266c3cbc66ca9038ae28a9a9c9d1ce5465bd928c54f668be19321117b', NULL);
INSERT INTO public.attempt_artifact VALUES (25, 0, 'upload.log', 'log', '346f3187435ac2799f65cf95624d6e713f7370675208cf6c7601d051f7585640', NULL);
INSERT INTO public.attempt_artifact VALUES (22, 0, 'fails-build-1.0-1.demo1.src.rpm', 'srpm', '0c2c80918c28ef29f9b9af814292241b1e00951d7fff41a73480aea1c04a52c5', 'fails-build-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (22, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (22, 2, 'srpm.log', 'log', 'f1298bc12a525deb59c40e067edd22591af872d4cf9adfbd3a645cf36dbca843', NULL);
INSERT INTO public.attempt_artifact VALUES (24, 0, 'hello-c-1.0-1.other.src.rpm', 'srpm', 'b35f627b148e39c8a9d6f7537135ee32e2759c738d66edace6e9b42920763466', 'hello-c-1.0-1.other.src');
INSERT INTO public.attempt_artifact VALUES (24, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (24, 2, 'srpm.log', 'log', '5fc864471d9e8bb3b36fcdb1b38d86cf6dc53483b6b1ba9242a216b83c8d23f6', NULL);
INSERT INTO public.attempt_artifact VALUES (30, 0, 'upload.log', 'log', '1ce92a18fb2e9e566666fb10ff632b307def4afa5cb6d0a41707bc09ee65079e', NULL);
INSERT INTO public.attempt_artifact VALUES (26, 0, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (26, 1, 'provenance.json', 'record', '86caa65e1fda112f5c52836e8673a32a47aa7e8f72b3ca91ef955517a96b1e73', NULL);
INSERT INTO public.attempt_artifact VALUES (26, 2, 'build.x86_64.log', 'log', '1089d1261af0298d1a717e324afd239e355948d7383df9023efde7ebcfeddf50', NULL);
INSERT INTO public.attempt_artifact VALUES (31, 0, 'upload.log', 'log', '391bb81f60c29b86aa1bd25ab44a85259f05dfdcc5d5ba4611790e6bb0731654', NULL);
INSERT INTO public.attempt_artifact VALUES (28, 0, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (28, 1, 'provenance.json', 'record', '969ce75e3a42b97e1941bd7362388af47227b2f3954051322740359eec405915', NULL);
INSERT INTO public.attempt_artifact VALUES (28, 2, 'build.x86_64.log', 'log', 'fbf46367981d1634b2a1d4c5f61a6dcc5ab1bba4978efca3d2632e7121a1e928', NULL);
INSERT INTO public.attempt_artifact VALUES (32, 0, 'upload.log', 'log', 'b29baff7d6e7ddfaa452bbef15221ca0903d0223a419f3ed7372a5bce948c1ba', NULL);
INSERT INTO public.attempt_artifact VALUES (33, 0, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (33, 1, 'provenance.json', 'record', 'bd6c2f87659f75438aacd5bea6ebb1fdcf0c890a4ad560e9546b901ea8ae253f', NULL);
INSERT INTO public.attempt_artifact VALUES (33, 2, 'build.x86_64.log', 'log', '254ef5356c0e5c9cf046062b4a1f6c81ea546f7f8a846676c3156a293c94428d', NULL);
INSERT INTO public.attempt_artifact VALUES (34, 0, 'upload.log', 'log', 'ecdcfe80e3e6d88a9987632232db69fcea242af90736db550cb2198369a7387c', NULL);
INSERT INTO public.attempt_artifact VALUES (35, 0, 'never-ends-1.0-1.src.rpm', 'srpm', 'e402327646e9981544bff593de0659be3408d2f4f7e903556d86930603ff0265', 'never-ends-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (35, 1, 'fetch.log', 'log', '9a3c58db59b88c0f91aa3e5f25950a613d07ba977cb1d9b134c7c3c4c2fa0d42', NULL);
INSERT INTO public.attempt_artifact VALUES (36, 0, 'never-ends-1.0-1.demo1.src.rpm', 'srpm', '9ab2a883beec31fcaadf597f793b7670f1ddb368d6f201970d002e28cf6ea412', 'never-ends-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (36, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (36, 2, 'srpm.log', 'log', '3ead5918b63f7e10c0942bcee393afb1ef8f82b7f61703f31601baab78daee4e', NULL);
INSERT INTO public.attempt_artifact VALUES (39, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (39, 1, 'fetch.log', 'log', '497697562273748811d473ea9d35b46dcf149ea82cbf36f50ff5ca718773f90d', NULL);
INSERT INTO public.attempt_artifact VALUES (41, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (41, 1, 'fetch.log', 'log', 'b346b5d4defba972756bd102672dbdf97650d9764949aef18a65ca8b9e3ad78e', NULL);
INSERT INTO public.attempt_artifact VALUES (40, 0, 'naps-1-1.demo1.src.rpm', 'srpm', '000c59e79e4b857ca41b71b916703f268054cd833296ba84466ee136b2eaae74', 'naps-1-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (40, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (40, 2, 'srpm.log', 'log', '95f1e2ac6e9a07cde50fbecaa6ce24c0b059fb36abf2fda897d5b84ded8596ea', NULL);
INSERT INTO public.attempt_artifact VALUES (42, 0, 'naps-2-1.demo1.src.rpm', 'srpm', 'b3d59ac72095879102c553959825c580275b1e2f2702dd2bb568ca0f4082bb4a', 'naps-2-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (42, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (42, 2, 'srpm.log', 'log', '7b0a16c06330538c269e56961596795ab97fcfa954f028fc1731ee6d9ea3160c', NULL);
INSERT INTO public.attempt_artifact VALUES (43, 0, 'debuginfo-1.0-1.src.rpm', 'srpm', 'f4f92f010f9d86780eef776138960f20eb33196656f7bb8963b1c31212dc45a2', 'debuginfo-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (43, 1, 'fetch.log', 'log', '29e0d6d59668d6cfca1f42d4f84c67fe2f241a642d22359d0a2b301acb235307', NULL);
INSERT INTO public.attempt_artifact VALUES (44, 0, 'debuginfo-1.0-1.demo1.src.rpm', 'srpm', '9780295e68a70d429f3f5b030ac343c9338bcc10d404dd5358809c04d939d6f9', 'debuginfo-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (44, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (44, 2, 'srpm.log', 'log', '9cfa6088c3bd5d7c20bb6f817de96ab9bfb99633e13c0644798469a35bd66ccb', NULL);
INSERT INTO public.attempt_artifact VALUES (37, 0, 'build.x86_64.log', 'log', 'aa26fcde1547425eeb9d94820e1d3beaa17f8230be3826e28bb42a5762b029c3', NULL);
INSERT INTO public.attempt_artifact VALUES (48, 0, 'naps-1-1.demo1.x86_64.rpm', 'rpm', 'f61d6392304b8cdb9f2721e8f03deeae7e0b4994cb0ac1039eb72ea57c60ca25', 'naps-1-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (48, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (48, 2, 'provenance.json', 'record', 'b95193d303cb51cf174245190c93f06ee9fecec8e89124354b6a3556707fecda', NULL);
INSERT INTO public.attempt_artifact VALUES (48, 3, 'build.x86_64.log', 'log', '2800a55c468fec0ac0fe57c520621f0f502791c35eb94dffa50e895061b298bf', NULL);
INSERT INTO public.attempt_artifact VALUES (49, 0, 'upload.log', 'log', 'f24e15a2d87cf3769dff739a716764574ad34ed8eab63473dd9d3da93a415838', NULL);
INSERT INTO public.attempt_artifact VALUES (50, 0, 'debuginfo-1.0-1.demo1.x86_64.rpm', 'rpm', '0b517a48988a876f29df1bd07712658bbcbfcfc9de840eed0c1483b5d9238e4c', 'debuginfo-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (50, 1, 'debuginfo-debuginfo-1.0-1.demo1.x86_64.rpm', 'rpm', 'd8b4e39c31085efe2bbaccc826ee43186705e48f5489822e5faa0f9e54bdfefe', 'debuginfo-debuginfo-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (50, 2, 'debuginfo-debugsource-1.0-1.demo1.x86_64.rpm', 'rpm', 'f6d1765cb82e2552a1e2d888204886ab1dc66e37238a3a4df8b3fa6555064e2d', 'debuginfo-debugsource-1.0-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (50, 3, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (50, 4, 'provenance.json', 'record', '75affcf817e559b0d8ed916cce665823793717959e59c3fdb32437def1954506', NULL);
INSERT INTO public.attempt_artifact VALUES (50, 5, 'build.x86_64.log', 'log', '9892d3e32ec6f5d0d632c0fdb81b1e84c746497d60f064a8695a6f926b62171b', NULL);
INSERT INTO public.attempt_artifact VALUES (51, 0, 'upload.log', 'log', '92843c40aa64ff316a2acb26de13ffd14404177bd2412e778d2c7a7f099a2ddb', NULL);
INSERT INTO public.attempt_artifact VALUES (52, 0, 'naps-2-1.demo1.x86_64.rpm', 'rpm', 'e65c81988086824ca0144cb728c5133801dc73df5140ca13c7170bcf6aefdff7', 'naps-2-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (52, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (52, 2, 'provenance.json', 'record', '43fabcf2ee57268bca3b28fdfd2eaeb3a54f3b8faec36a7fe8c53bb801067bd0', NULL);
INSERT INTO public.attempt_artifact VALUES (52, 3, 'build.x86_64.log', 'log', '73831e12c02e04d0970c591e6db7ef4449c9843dc6d39faa11a50f80fd1a9150', NULL);
INSERT INTO public.attempt_artifact VALUES (53, 0, 'upload.log', 'log', '01643e17dd98def3210e9f60b6893310cffc69c025a3a201456198a6f4af4846', NULL);
INSERT INTO public.attempt_artifact VALUES (54, 0, 'fails-install-1.0-1.src.rpm', 'srpm', '1708e620e61bbfb702f28962b30257b1b5eea6af7395f60bc130022692858bb5', 'fails-install-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (54, 1, 'fetch.log', 'log', '99147b29860fd12fcba9e818a0ff7e4f10f4e016b407aa352881e5d1b0df212f', NULL);
INSERT INTO public.attempt_artifact VALUES (56, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (56, 1, 'fetch.log', 'log', 'f32bc68437a35e8b91cba53a3e65792ba34b52e6a6604ebc41692c0c88b86e15', NULL);
INSERT INTO public.attempt_artifact VALUES (55, 0, 'fails-install-1.0-1.demo1.src.rpm', 'srpm', '9b88cfb2e6fe7fc03d6bc013289bf5a06ed49a5f46c41dfb77836e67706af901', 'fails-install-1.0-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (55, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (55, 2, 'srpm.log', 'log', '2fb8295403752edf8d33e8d6ed8903f425c7b1a6c96961df25a82a98221f5413', NULL);
INSERT INTO public.attempt_artifact VALUES (57, 0, 'naps-3-1.demo1.src.rpm', 'srpm', 'ef2e084b8e5aa7b292a1e06ae6e39f5b956aace3a2db2d688f1926abe4373e27', 'naps-3-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (57, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (57, 2, 'srpm.log', 'log', 'abd9f2aa2bb233f364342a56ed8d091f46fbaf68caf5dac5caa501bb764378b3', NULL);
INSERT INTO public.attempt_artifact VALUES (58, 0, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (58, 1, 'provenance.json', 'record', 'fa01cc8500d65425dc7816e284099a6319d0c9c4ab743d63bdd657a13acb9ac2', NULL);
INSERT INTO public.attempt_artifact VALUES (58, 2, 'build.x86_64.log', 'log', 'd9cf01ff0b2c6367a9d4c18334928b5154370dc5db0644fa687f96282c1bb266', NULL);
INSERT INTO public.attempt_artifact VALUES (60, 0, 'naps-3-1.demo1.x86_64.rpm', 'rpm', '7d3f6067f27a275b2646f2d2e6343e5877ceedab673452aef40ee5251bde0c28', 'naps-3-1.demo1.x86_64');
INSERT INTO public.attempt_artifact VALUES (60, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (60, 2, 'provenance.json', 'record', '0e7115103defbf4dbe8aa4a48300b6fc2d330682ff840957f670ce2c1f99a32a', NULL);
INSERT INTO public.attempt_artifact VALUES (60, 3, 'build.x86_64.log', 'log', 'd8eb7d62be1e58d5df4474accd7ba9e7be691fd608a5435dcffd8edb2ac885ae', NULL);
INSERT INTO public.attempt_artifact VALUES (62, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (62, 1, 'fetch.log', 'log', 'a5309fda3142efc7c72b99c106eb1bc1baae748e77dd6fe33d7b4b36bfbf9745', NULL);
INSERT INTO public.attempt_artifact VALUES (63, 0, 'naps-4-1.demo1.src.rpm', 'srpm', 'edea0136bdef80f468a15eb16002de5b0aae3b6a0cc05ab2f31da279ad316316', 'naps-4-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (63, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (63, 2, 'srpm.log', 'log', '8e9c391374764b443cdb601b7e1d54f67e47e5ea76ca6b723f9ae8945b01283e', NULL);
INSERT INTO public.attempt_artifact VALUES (66, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (66, 1, 'fetch.log', 'log', '25c03f50ae5fbc132dc748b36cc709beba29e06220dd0f413a7e14cf2812b70f', NULL);
INSERT INTO public.attempt_artifact VALUES (67, 0, 'naps-5-1.demo1.src.rpm', 'srpm', 'f2eb80894d45d7207adb2b1d0787a8aa5b480394ddaab9868c6bab8301ce905e', 'naps-5-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (67, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (67, 2, 'srpm.log', 'log', '57e6c825ce97ccee842716ed04f7ced9fd3dc77722b0cd50450e5e39ed9e94b2', NULL);
INSERT INTO public.attempt_artifact VALUES (70, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (70, 1, 'fetch.log', 'log', 'cc2e22f23563599f52f5960a6fdb8c46f4db6ba3a0384fb30d9e68ff590d7b88', NULL);
INSERT INTO public.attempt_artifact VALUES (71, 0, 'naps-6-1.demo1.src.rpm', 'srpm', '9d9f896ac3d90e2038df8756d0fdbb22ee0cc7178b17dc23e8c7c75ce7cd3ca2', 'naps-6-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (71, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (71, 2, 'srpm.log', 'log', '5c4b59e01e86df54d3b91a73b04ad5632281033799264691189fe0d240a08dd8', NULL);
INSERT INTO public.attempt_artifact VALUES (74, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (74, 1, 'fetch.log', 'log', '23f1d39d7f24e59447dc20ad6cae1a16deab2b41f46b090142eb0b8f21bd751a', NULL);
INSERT INTO public.attempt_artifact VALUES (75, 0, 'naps-7-1.demo1.src.rpm', 'srpm', 'dc98c4305fbb8a13fb56759d7c116c3aaf1b595b209f289e5bb8cd6051a82a2d', 'naps-7-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (75, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (75, 2, 'srpm.log', 'log', 'e0e86bd750600f9646089d3e1b79f084bea865fc94018ab6b595e41f4047340e', NULL);
INSERT INTO public.attempt_artifact VALUES (78, 0, 'naps-1.0-1.src.rpm', 'srpm', '18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a', 'naps-1.0-1.src');
INSERT INTO public.attempt_artifact VALUES (78, 1, 'fetch.log', 'log', 'd806ae1a32dc1a50a56de618eecbd15982832b94d7fd95d42c9060a06a5cb792', NULL);
INSERT INTO public.attempt_artifact VALUES (79, 0, 'naps-8-1.demo1.src.rpm', 'srpm', '499cb37125a4d1f51ee1079fef765f3b1aa40a314b90980b8d106369bafc08db', 'naps-8-1.demo1.src');
INSERT INTO public.attempt_artifact VALUES (79, 1, 'root.json', 'record', 'c8841fc38517de1bff9dcecd10212b1c4b54d89811f0fdade5087f7c5ee63274', NULL);
INSERT INTO public.attempt_artifact VALUES (79, 2, 'srpm.log', 'log', 'b326619d0105dfa0a25e7f5948326bd6b85602812352d53f0e82ec1517fa9260', NULL);


--
-- Data for Name: batch; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.batch VALUES (1, 'ann', '2026-11-27 19:48:00.499001+00');
INSERT INTO public.batch VALUES (2, 'ann', '2026-11-27 19:48:00.537326+00');
INSERT INTO public.batch VALUES (3, 'bob', '2026-11-27 19:48:06.451065+00');
INSERT INTO public.batch VALUES (4, 'bob', '2026-11-27 19:48:06.473049+00');
INSERT INTO public.batch VALUES (5, 'bob', '2026-11-27 19:48:06.497559+00');
INSERT INTO public.batch VALUES (6, 'ann', '2026-11-27 19:48:06.533077+00');
INSERT INTO public.batch VALUES (7, 'bob', '2026-11-27 19:48:06.559889+00');
INSERT INTO public.batch VALUES (8, 'ann', '2026-11-27 19:48:07.431785+00');
INSERT INTO public.batch VALUES (9, 'bob', '2026-11-27 19:48:08.008359+00');
INSERT INTO public.batch VALUES (10, 'bob', '2026-11-27 19:48:08.027647+00');
INSERT INTO public.batch VALUES (11, 'cem', '2026-11-27 19:48:08.049409+00');
INSERT INTO public.batch VALUES (12, 'ann', '2026-11-27 19:48:17.169187+00');
INSERT INTO public.batch VALUES (13, 'bob', '2026-11-27 19:48:17.188845+00');
INSERT INTO public.batch VALUES (14, 'bob', '2026-11-27 19:48:17.692509+00');
INSERT INTO public.batch VALUES (15, 'bob', '2026-11-27 19:48:18.076484+00');
INSERT INTO public.batch VALUES (16, 'bob', '2026-11-27 19:48:19.344492+00');
INSERT INTO public.batch VALUES (17, 'bob', '2026-11-27 19:48:20.293089+00');
INSERT INTO public.batch VALUES (18, 'bob', '2026-11-27 19:48:20.493746+00');
INSERT INTO public.batch VALUES (19, 'ann', '2026-11-27 19:48:23.135264+00');
INSERT INTO public.batch VALUES (20, 'ann', '2026-11-27 19:48:23.1637+00');
INSERT INTO public.batch VALUES (21, 'ann', '2026-11-27 19:48:23.190941+00');


--
-- Data for Name: build; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.build VALUES (1, 1, 'hello-c', 'hello-c-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"5745e133727c3f4cc11d0d6cb81dcc7aa4a939ad8d42daff1708f3e2709c212a","filename":"hello-c-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'ann', 'running', NULL, NULL, '2026-11-27 19:48:00.499001+00', NULL);
INSERT INTO public.build VALUES (2, 2, 'libgreet', 'libgreet-1.0-1.demo1.src', '6122866debd1c4d0a978c838db6a1eebf16c1cae', '{"kind":"git","url":"file:///tmp/farm-0006/git/libgreet","ref":"main","subdir":null,"spec":null,"sha256":null,"filename":null,"reader_uid":0}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'ann', 'finished', 'succeeded', NULL, '2026-11-27 19:48:00.537326+00', '2026-11-27 19:48:05.755165+00');
INSERT INTO public.build VALUES (3, 2, 'hello-noarch', 'hello-noarch-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"7f3e6e4adf3e153aa4382f1f9f86048f705083ce57d03031d71fe126be2fb996","filename":"hello-noarch-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64","aarch64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 5, 'ann', 'finished', 'succeeded', NULL, '2026-11-27 19:48:00.537326+00', '2026-11-27 19:48:06.432301+00');
INSERT INTO public.build VALUES (4, 3, 'fails-check', 'fails-check-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"05627fb5d49a578b32f957730cb019386d539f3c2fe9663bded4459e5f0fd004","filename":"fails-check-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":["extras"],"without":[],"defines":[],"timeout_s":600,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":2147483648,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'finished', 'failed', 'build x86_64: FAIL: test_answer', '2026-11-27 19:48:06.451065+00', '2026-11-27 19:48:06.91016+00');
INSERT INTO public.build VALUES (5, 4, 'exclusivearch-other', 'exclusivearch-other-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"b03e7d4e1e2188b1e5f468767bf84dd765029854ab9501451070f33400750ff5","filename":"exclusivearch-other-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'finished', 'excluded', 'ExclusiveArch is s390x, without x86_64', '2026-11-27 19:48:06.473049+00', '2026-11-27 19:48:06.715405+00');
INSERT INTO public.build VALUES (6, 5, 'unresolvable', 'unresolvable-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"d09e7e85e119056a7cad58db3b28727b5ce0257a250bd2d2c2fe4f1551b6ea65","filename":"unresolvable-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'finished', 'unresolvable', 'build x86_64: nothing provides no-such-library-devel >= 4.2', '2026-11-27 19:48:06.497559+00', '2026-11-27 19:48:07.210281+00');
INSERT INTO public.build VALUES (7, 6, 'fails-build', 'fails-build-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"7fdd2588d6d23e674f77481c176795dd3cf3d7684febef812fbc8060c01e1a87","filename":"fails-build-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'ann', 'finished', 'failed', 'build x86_64: broken.c:3:12: error: ‘undeclared_name’ undeclared (first use in this function)', '2026-11-27 19:48:06.533077+00', '2026-11-27 19:48:07.414524+00');
INSERT INTO public.build VALUES (8, 7, 'hello-c-1.0-1', NULL, NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"5745e133727c3f4cc11d0d6cb81dcc7aa4a939ad8d42daff1708f3e2709c212a","filename":"hello-c-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["dist",".other"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'finished', 'failed', 'srpm: ann published the source package hello-c of target demo first, and has the name; rename yours, build for a target of your own, or have an administrator release the names (docs/operating.md)', '2026-11-27 19:48:06.559889+00', '2026-11-27 19:48:07.122343+00');
INSERT INTO public.build VALUES (9, 8, 'never-ends', 'never-ends-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"e402327646e9981544bff593de0659be3408d2f4f7e903556d86930603ff0265","filename":"never-ends-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'ann', 'finished', 'cancelled', 'cancelled by tester', '2026-11-27 19:48:07.431785+00', '2026-11-27 19:48:08.484711+00');
INSERT INTO public.build VALUES (10, 9, 'naps', 'naps-1-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","1"],["nap_s","0"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'finished', 'succeeded', NULL, '2026-11-27 19:48:08.008359+00', '2026-11-27 19:48:14.262619+00');
INSERT INTO public.build VALUES (11, 10, 'naps', 'naps-2-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","2"],["nap_s","0"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'finished', 'succeeded', NULL, '2026-11-27 19:48:08.027647+00', '2026-11-27 19:48:14.82083+00');
INSERT INTO public.build VALUES (12, 11, 'debuginfo', 'debuginfo-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"f4f92f010f9d86780eef776138960f20eb33196656f7bb8963b1c31212dc45a2","filename":"debuginfo-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'cem', 'finished', 'succeeded', NULL, '2026-11-27 19:48:08.049409+00', '2026-11-27 19:48:14.5922+00');
INSERT INTO public.build VALUES (13, 12, 'fails-install', 'fails-install-1.0-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"1708e620e61bbfb702f28962b30257b1b5eea6af7395f60bc130022692858bb5","filename":"fails-install-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'ann', 'running', NULL, NULL, '2026-11-27 19:48:17.169187+00', NULL);
INSERT INTO public.build VALUES (14, 13, 'naps', 'naps-3-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","3"],["nap_s","0"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'running', NULL, NULL, '2026-11-27 19:48:17.188845+00', NULL);
INSERT INTO public.build VALUES (15, 14, 'naps', 'naps-4-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","4"],["nap_s","12"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'running', NULL, NULL, '2026-11-27 19:48:17.692509+00', NULL);
INSERT INTO public.build VALUES (16, 15, 'naps', 'naps-5-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","5"],["nap_s","0"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'running', NULL, NULL, '2026-11-27 19:48:18.076484+00', NULL);
INSERT INTO public.build VALUES (17, 16, 'naps', 'naps-6-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","6"],["nap_s","0"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'running', NULL, NULL, '2026-11-27 19:48:19.344492+00', NULL);
INSERT INTO public.build VALUES (18, 17, 'naps', 'naps-7-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","7"],["nap_s","0"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'running', NULL, NULL, '2026-11-27 19:48:20.293089+00', NULL);
INSERT INTO public.build VALUES (19, 18, 'naps', 'naps-8-1.demo1.src', NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","filename":"naps-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[["serial","8"],["nap_s","0"]],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'bob', 'running', NULL, NULL, '2026-11-27 19:48:20.493746+00', NULL);
INSERT INTO public.build VALUES (20, 19, 'uses-libgreet', NULL, NULL, '{"kind":"git","url":"http://***@127.0.0.1:47119/git/uses-libgreet","ref":null,"subdir":null,"spec":null,"sha256":null,"filename":null,"reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'ann', 'ready', NULL, NULL, '2026-11-27 19:48:23.135264+00', NULL);
INSERT INTO public.build VALUES (21, 20, 'excludearch-1.0-1', NULL, NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"63f54b050638bc728f9fb6f98ffed59cd89e4567bd557c3e6dca5e2760f925fb","filename":"excludearch-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64","ppc64le"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', 0, 'ann', 'ready', NULL, NULL, '2026-11-27 19:48:23.1637+00', NULL);
INSERT INTO public.build VALUES (22, 21, 'fails-prep-1.0-1', NULL, NULL, '{"kind":"srpm","url":null,"ref":null,"subdir":null,"spec":null,"sha256":"d7c8715cf3b76f68c2d706378d608324e3492056964141b099cddcf4ddf5fefe","filename":"fails-prep-1.0-1.src.rpm","reader_uid":null}', 'demo', '["x86_64"]', '{"with_":[],"without":[],"defines":[],"timeout_s":null,"limits":{"wall_s":null,"silence_s":null,"log_bytes":null,"memory_bytes":null,"disk_bytes":null,"files":null,"processes":null}}', -3, 'ann', 'ready', NULL, NULL, '2026-11-27 19:48:23.190941+00', NULL);


--
-- Data for Name: closing; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: host; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.host VALUES ('build.x86_64@sick', 'quarantined', 'trouble with 3 builds in a row (10, 11, 12), the last: no space left on the device', 'the farm', '2026-11-27 19:48:08.391721+00', '2026-11-27 19:58:08.391721+00', false, 1);
INSERT INTO public.host VALUES ('spare', 'drained', 'a new disk', 'tester', '2026-11-27 19:48:14.83184+00', NULL, false, 1);


--
-- Data for Name: owner_load; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: package_owner; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.package_owner VALUES ('demo', 'source', 'libgreet', 'ann', 2, '2026-11-27 19:48:05.755165+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'libgreet', 'ann', 2, '2026-11-27 19:48:05.755165+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'libgreet-debuginfo', 'ann', 2, '2026-11-27 19:48:05.755165+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'libgreet-debugsource', 'ann', 2, '2026-11-27 19:48:05.755165+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'libgreet-devel', 'ann', 2, '2026-11-27 19:48:05.755165+00');
INSERT INTO public.package_owner VALUES ('demo', 'source', 'hello-c', 'ann', 1, '2026-11-27 19:48:06.171281+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'hello-c', 'ann', 1, '2026-11-27 19:48:06.171281+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'hello-c-debuginfo', 'ann', 1, '2026-11-27 19:48:06.171281+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'hello-c-debugsource', 'ann', 1, '2026-11-27 19:48:06.171281+00');
INSERT INTO public.package_owner VALUES ('demo', 'source', 'hello-noarch', 'ann', 3, '2026-11-27 19:48:06.432301+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'hello-noarch', 'ann', 3, '2026-11-27 19:48:06.432301+00');
INSERT INTO public.package_owner VALUES ('demo', 'source', 'naps', 'bob', 10, '2026-11-27 19:48:14.262619+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'naps', 'bob', 10, '2026-11-27 19:48:14.262619+00');
INSERT INTO public.package_owner VALUES ('demo', 'source', 'debuginfo', 'cem', 12, '2026-11-27 19:48:14.5922+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'debuginfo', 'cem', 12, '2026-11-27 19:48:14.5922+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'debuginfo-debuginfo', 'cem', 12, '2026-11-27 19:48:14.5922+00');
INSERT INTO public.package_owner VALUES ('demo', 'binary', 'debuginfo-debugsource', 'cem', 12, '2026-11-27 19:48:14.5922+00');


--
-- Data for Name: queue; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.queue VALUES ('source', 1, 0, '');
INSERT INTO public.queue VALUES ('publish', 0, 0, '');
INSERT INTO public.queue VALUES ('build.x86_64', 3, 3, '');
INSERT INTO public.queue VALUES ('build.aarch64', 0, 0, '');
INSERT INTO public.queue VALUES ('build.ppc64le', 0, 0, '');


--
-- Data for Name: repository; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.repository VALUES ('demo/x86_64/os', 6, 'file:///tmp/farm-0006/repositories/demo/x86_64/os/versions/6/', '2026-11-27 19:48:17.361921+00');


--
-- Data for Name: source_secret; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.source_secret VALUES (20, 'http://ann:open-sesame@127.0.0.1:47119/git/uses-libgreet');


--
-- Data for Name: step; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.step VALUES (1, 1, 'fetch', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"hello-c-1.0-1.src.rpm","kind":"srpm","sha256":"5745e133727c3f4cc11d0d6cb81dcc7aa4a939ad8d42daff1708f3e2709c212a","size_bytes":7039,"nevra":"hello-c-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (2, 1, 'srpm', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"hello-c-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"94131261ab09f6901e1fee732ff7a17dcc0815fd8d545b557e10b7062247ae94","size_bytes":7796,"nevra":"hello-c-1.0-1.demo1.src"},"nevra":"hello-c-1.0-1.demo1.src","build_requires":["gcc"],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (3, 2, 'fetch', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"libgreet-6122866debd1.tar","kind":"source","sha256":"de459b70e63b998137dd2d883b3cd20a0d1e52ada074338c121672139a813223","size_bytes":10240,"nevra":null},"spec":"libgreet.spec","commit":"6122866debd1c4d0a978c838db6a1eebf16c1cae","commit_at":1767323045}', 0);
INSERT INTO public.step VALUES (4, 2, 'srpm', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"libgreet-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"38bd8dea4af63c74d38fc221cbae008038c454710541cfcfd2b0ef890d021a54","size_bytes":8893,"nevra":"libgreet-1.0-1.demo1.src"},"nevra":"libgreet-1.0-1.demo1.src","build_requires":["gcc"],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (5, 3, 'fetch', '', 'source', -5, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"hello-noarch-1.0-1.src.rpm","kind":"srpm","sha256":"7f3e6e4adf3e153aa4382f1f9f86048f705083ce57d03031d71fe126be2fb996","size_bytes":6817,"nevra":"hello-noarch-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (6, 3, 'srpm', '', 'source', -5, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"hello-noarch-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"0af8807e1902616d64b1b6b1e7a193db28297def1cea4f09649895176058a01c","size_bytes":6858,"nevra":"hello-noarch-1.0-1.demo1.src"},"nevra":"hello-noarch-1.0-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":true}', 0);
INSERT INTO public.step VALUES (7, 2, 'build', 'x86_64', 'build.x86_64', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"rpms":[{"name":"libgreet-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"7702efb312b3a6bacdd5ffd2da15a66dd8e7afb774ee6d6e4ab3fd0cccca4f78","size_bytes":8212,"nevra":"libgreet-1.0-1.demo1.x86_64"},{"name":"libgreet-debuginfo-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"c0422c66cc6eff2d54c9c2b1e6645285994dc21f11bfd16a6ff54347fe8d0adc","size_bytes":9362,"nevra":"libgreet-debuginfo-1.0-1.demo1.x86_64"},{"name":"libgreet-debugsource-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"04bca83ee7e54544233f13275b2bb4290f8325da6f406cb379a790e9844fa4bd","size_bytes":6656,"nevra":"libgreet-debugsource-1.0-1.demo1.x86_64"},{"name":"libgreet-devel-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"c91ab464a7e4a5cd3ff04ccf77c5bb56613496b8082243c6d7248b97d6e63126","size_bytes":6467,"nevra":"libgreet-devel-1.0-1.demo1.x86_64"}]}', 0);
INSERT INTO public.step VALUES (8, 2, 'upload', 'x86_64', 'publish', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"versions":[["demo/source",1,"file:///tmp/farm-0006/repositories/demo/source/versions/1/"],["demo/x86_64/debug",1,"file:///tmp/farm-0006/repositories/demo/x86_64/debug/versions/1/"],["demo/x86_64/os",1,"file:///tmp/farm-0006/repositories/demo/x86_64/os/versions/1/"]]}', 0);
INSERT INTO public.step VALUES (9, 1, 'build', 'x86_64', 'build.x86_64', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"rpms":[{"name":"hello-c-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"d8233d642a986d6d1bae4a1ea39a6f729f26a8dc99906a93547616f5043c8aa5","size_bytes":8586,"nevra":"hello-c-1.0-1.demo1.x86_64"},{"name":"hello-c-debuginfo-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"d39e4f3959ef78dbfb6fd8f7c616763d2c45d28ea4ec2fb2504a1aeabc6ce133","size_bytes":9652,"nevra":"hello-c-debuginfo-1.0-1.demo1.x86_64"},{"name":"hello-c-debugsource-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"6f89bc87e0e8b59d4473fdd88c6773ff2d17f473c34386444d64ccf06892cc3e","size_bytes":6640,"nevra":"hello-c-debugsource-1.0-1.demo1.x86_64"}]}', 0);
INSERT INTO public.step VALUES (10, 1, 'upload', 'x86_64', 'publish', 0, 'ann', 'ready', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (11, 3, 'build', 'x86_64', 'build.x86_64', -5, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, '["x86_64","aarch64"]', '{"rpms":[{"name":"hello-noarch-1.0-1.demo1.noarch.rpm","kind":"rpm","sha256":"756a928f35466ad1089ed8cff9f839db25ec7e9b5ac99b2e2c06f5af1a76533c","size_bytes":6340,"nevra":"hello-noarch-1.0-1.demo1.noarch"}]}', 0);
INSERT INTO public.step VALUES (12, 3, 'upload', 'x86_64', 'publish', -5, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, '["x86_64","aarch64"]', '{"versions":[["demo/source",3,"file:///tmp/farm-0006/repositories/demo/source/versions/3/"],["demo/x86_64/os",3,"file:///tmp/farm-0006/repositories/demo/x86_64/os/versions/3/"],["demo/aarch64/os",1,"file:///tmp/farm-0006/repositories/demo/aarch64/os/versions/1/"]]}', 0);
INSERT INTO public.step VALUES (13, 4, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"fails-check-1.0-1.src.rpm","kind":"srpm","sha256":"05627fb5d49a578b32f957730cb019386d539f3c2fe9663bded4459e5f0fd004","size_bytes":6821,"nevra":"fails-check-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (14, 4, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"fails-check-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"7b2f4e7d47ff880cec1966cf65a2b9654d591c93dd5dbe75c605adf655dc1b6c","size_bytes":6870,"nevra":"fails-check-1.0-1.demo1.src"},"nevra":"fails-check-1.0-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":true}', 0);
INSERT INTO public.step VALUES (15, 5, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"exclusivearch-other-1.0-1.src.rpm","kind":"srpm","sha256":"b03e7d4e1e2188b1e5f468767bf84dd765029854ab9501451070f33400750ff5","size_bytes":6743,"nevra":"exclusivearch-other-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (16, 5, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"exclusivearch-other-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"b1f3ccfe23c9d023eb08eb8873311b1baaecee15b97beb095465bbd1ece28d56","size_bytes":6758,"nevra":"exclusivearch-other-1.0-1.demo1.src"},"nevra":"exclusivearch-other-1.0-1.demo1.src","build_requires":[],"exclusive_arches":["s390x"],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (17, 6, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"unresolvable-1.0-1.src.rpm","kind":"srpm","sha256":"d09e7e85e119056a7cad58db3b28727b5ce0257a250bd2d2c2fe4f1551b6ea65","size_bytes":6516,"nevra":"unresolvable-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (18, 6, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"unresolvable-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"33cd2be21fe7dd8b0bcfca6f3b3e1703fb08f89de010fac5e8970634b93ee665","size_bytes":6586,"nevra":"unresolvable-1.0-1.demo1.src"},"nevra":"unresolvable-1.0-1.demo1.src","build_requires":["gcc","no-such-library-devel >= 4.2"],"exclusive_arches":[],"exclude_arches":[],"noarch":true}', 0);
INSERT INTO public.step VALUES (19, 7, 'fetch', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"fails-build-1.0-1.src.rpm","kind":"srpm","sha256":"7fdd2588d6d23e674f77481c176795dd3cf3d7684febef812fbc8060c01e1a87","size_bytes":7258,"nevra":"fails-build-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (20, 7, 'srpm', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"fails-build-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"0c2c80918c28ef29f9b9af814292241b1e00951d7fff41a73480aea1c04a52c5","size_bytes":8030,"nevra":"fails-build-1.0-1.demo1.src"},"nevra":"fails-build-1.0-1.demo1.src","build_requires":["gcc","make"],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (21, 8, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"hello-c-1.0-1.src.rpm","kind":"srpm","sha256":"5745e133727c3f4cc11d0d6cb81dcc7aa4a939ad8d42daff1708f3e2709c212a","size_bytes":7039,"nevra":"hello-c-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (22, 8, 'srpm', '', 'source', 0, 'bob', 'finished', 'failed', 'ann published the source package hello-c of target demo first, and has the name; rename yours, build for a target of your own, or have an administrator release the names (docs/operating.md)', false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (23, 4, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'finished', 'failed', 'FAIL: test_answer', false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (24, 4, 'upload', 'x86_64', 'publish', 0, 'bob', 'finished', 'succeeded', 'logs and records only: build x86_64 failed', true, NULL, 2, 0, NULL, NULL, NULL, '{"versions":[]}', 0);
INSERT INTO public.step VALUES (25, 5, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'finished', 'excluded', 'ExclusiveArch is s390x, without x86_64', false, NULL, 0, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (26, 5, 'upload', 'x86_64', 'publish', 0, 'bob', 'finished', 'excluded', 'ExclusiveArch is s390x, without x86_64', false, NULL, 0, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (27, 6, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'finished', 'unresolvable', 'nothing provides no-such-library-devel >= 4.2', false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (28, 6, 'upload', 'x86_64', 'publish', 0, 'bob', 'finished', 'succeeded', 'logs and records only: build x86_64 unresolvable', true, NULL, 2, 0, NULL, NULL, NULL, '{"versions":[]}', 0);
INSERT INTO public.step VALUES (29, 7, 'build', 'x86_64', 'build.x86_64', 0, 'ann', 'finished', 'failed', 'broken.c:3:12: error: ‘undeclared_name’ undeclared (first use in this function)', false, NULL, 2, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (30, 7, 'upload', 'x86_64', 'publish', 0, 'ann', 'finished', 'succeeded', 'logs and records only: build x86_64 failed', true, NULL, 4, 0, NULL, NULL, NULL, '{"versions":[]}', 0);
INSERT INTO public.step VALUES (31, 8, 'upload', '', 'publish', 0, 'bob', 'finished', 'succeeded', 'logs and records only: srpm failed', true, NULL, 1, 0, NULL, NULL, NULL, '{"versions":[]}', 0);
INSERT INTO public.step VALUES (32, 9, 'fetch', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"never-ends-1.0-1.src.rpm","kind":"srpm","sha256":"e402327646e9981544bff593de0659be3408d2f4f7e903556d86930603ff0265","size_bytes":6826,"nevra":"never-ends-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (33, 9, 'srpm', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"never-ends-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"9ab2a883beec31fcaadf597f793b7670f1ddb368d6f201970d002e28cf6ea412","size_bytes":6899,"nevra":"never-ends-1.0-1.demo1.src"},"nevra":"never-ends-1.0-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":true}', 0);
INSERT INTO public.step VALUES (34, 9, 'build', 'x86_64', 'build.x86_64', 0, 'ann', 'finished', 'cancelled', 'cancelled by tester', false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (35, 9, 'upload', 'x86_64', 'publish', 0, 'ann', 'finished', 'cancelled', 'cancelled by tester', false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (36, 10, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (37, 10, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-1-1.demo1.src.rpm","kind":"srpm","sha256":"000c59e79e4b857ca41b71b916703f268054cd833296ba84466ee136b2eaae74","size_bytes":6701,"nevra":"naps-1-1.demo1.src"},"nevra":"naps-1-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (38, 11, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (39, 11, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-2-1.demo1.src.rpm","kind":"srpm","sha256":"b3d59ac72095879102c553959825c580275b1e2f2702dd2bb568ca0f4082bb4a","size_bytes":6701,"nevra":"naps-2-1.demo1.src"},"nevra":"naps-2-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (40, 12, 'fetch', '', 'source', 0, 'cem', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"debuginfo-1.0-1.src.rpm","kind":"srpm","sha256":"f4f92f010f9d86780eef776138960f20eb33196656f7bb8963b1c31212dc45a2","size_bytes":8204,"nevra":"debuginfo-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (41, 12, 'srpm', '', 'source', 0, 'cem', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"debuginfo-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"9780295e68a70d429f3f5b030ac343c9338bcc10d404dd5358809c04d939d6f9","size_bytes":8209,"nevra":"debuginfo-1.0-1.demo1.src"},"nevra":"debuginfo-1.0-1.demo1.src","build_requires":["gcc"],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (42, 10, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 2, 1, 'store-trouble: no space left on the device', '["sick"]', NULL, '{"rpms":[{"name":"naps-1-1.demo1.x86_64.rpm","kind":"rpm","sha256":"f61d6392304b8cdb9f2721e8f03deeae7e0b4994cb0ac1039eb72ea57c60ca25","size_bytes":6277,"nevra":"naps-1-1.demo1.x86_64"}]}', 0);
INSERT INTO public.step VALUES (43, 10, 'upload', 'x86_64', 'publish', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 2, 0, NULL, NULL, NULL, '{"versions":[["demo/source",4,"file:///tmp/farm-0006/repositories/demo/source/versions/4/"],["demo/x86_64/os",4,"file:///tmp/farm-0006/repositories/demo/x86_64/os/versions/4/"]]}', 0);
INSERT INTO public.step VALUES (44, 11, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 2, 1, 'store-trouble: no space left on the device', '["sick"]', NULL, '{"rpms":[{"name":"naps-2-1.demo1.x86_64.rpm","kind":"rpm","sha256":"e65c81988086824ca0144cb728c5133801dc73df5140ca13c7170bcf6aefdff7","size_bytes":6277,"nevra":"naps-2-1.demo1.x86_64"}]}', 0);
INSERT INTO public.step VALUES (45, 11, 'upload', 'x86_64', 'publish', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 2, 0, NULL, NULL, NULL, '{"versions":[["demo/source",6,"file:///tmp/farm-0006/repositories/demo/source/versions/6/"],["demo/x86_64/os",6,"file:///tmp/farm-0006/repositories/demo/x86_64/os/versions/6/"]]}', 0);
INSERT INTO public.step VALUES (46, 12, 'build', 'x86_64', 'build.x86_64', 0, 'cem', 'finished', 'succeeded', NULL, false, NULL, 2, 1, 'store-trouble: no space left on the device', '["sick"]', NULL, '{"rpms":[{"name":"debuginfo-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"0b517a48988a876f29df1bd07712658bbcbfcfc9de840eed0c1483b5d9238e4c","size_bytes":8641,"nevra":"debuginfo-1.0-1.demo1.x86_64"},{"name":"debuginfo-debuginfo-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"d8b4e39c31085efe2bbaccc826ee43186705e48f5489822e5faa0f9e54bdfefe","size_bytes":9891,"nevra":"debuginfo-debuginfo-1.0-1.demo1.x86_64"},{"name":"debuginfo-debugsource-1.0-1.demo1.x86_64.rpm","kind":"rpm","sha256":"f6d1765cb82e2552a1e2d888204886ab1dc66e37238a3a4df8b3fa6555064e2d","size_bytes":6720,"nevra":"debuginfo-debugsource-1.0-1.demo1.x86_64"}]}', 0);
INSERT INTO public.step VALUES (47, 12, 'upload', 'x86_64', 'publish', 0, 'cem', 'finished', 'succeeded', NULL, false, NULL, 2, 0, NULL, NULL, NULL, '{"versions":[["demo/source",5,"file:///tmp/farm-0006/repositories/demo/source/versions/5/"],["demo/x86_64/debug",3,"file:///tmp/farm-0006/repositories/demo/x86_64/debug/versions/3/"],["demo/x86_64/os",5,"file:///tmp/farm-0006/repositories/demo/x86_64/os/versions/5/"]]}', 0);
INSERT INTO public.step VALUES (48, 13, 'fetch', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"fails-install-1.0-1.src.rpm","kind":"srpm","sha256":"1708e620e61bbfb702f28962b30257b1b5eea6af7395f60bc130022692858bb5","size_bytes":6708,"nevra":"fails-install-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (49, 13, 'srpm', '', 'source', 0, 'ann', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"fails-install-1.0-1.demo1.src.rpm","kind":"srpm","sha256":"9b88cfb2e6fe7fc03d6bc013289bf5a06ed49a5f46c41dfb77836e67706af901","size_bytes":6770,"nevra":"fails-install-1.0-1.demo1.src"},"nevra":"fails-install-1.0-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":true}', 0);
INSERT INTO public.step VALUES (50, 14, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (51, 14, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-3-1.demo1.src.rpm","kind":"srpm","sha256":"ef2e084b8e5aa7b292a1e06ae6e39f5b956aace3a2db2d688f1926abe4373e27","size_bytes":6701,"nevra":"naps-3-1.demo1.src"},"nevra":"naps-3-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (52, 13, 'build', 'x86_64', 'build.x86_64', 0, 'ann', 'finished', 'failed', 'install: cannot stat ''never-made.txt'': No such file or directory', false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (53, 13, 'upload', 'x86_64', 'publish', 0, 'ann', 'ready', NULL, 'logs and records only: build x86_64 failed', true, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (54, 14, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"rpms":[{"name":"naps-3-1.demo1.x86_64.rpm","kind":"rpm","sha256":"7d3f6067f27a275b2646f2d2e6343e5877ceedab673452aef40ee5251bde0c28","size_bytes":6278,"nevra":"naps-3-1.demo1.x86_64"}]}', 0);
INSERT INTO public.step VALUES (55, 14, 'upload', 'x86_64', 'publish', 0, 'bob', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (56, 15, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (57, 15, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-4-1.demo1.src.rpm","kind":"srpm","sha256":"edea0136bdef80f468a15eb16002de5b0aae3b6a0cc05ab2f31da279ad316316","size_bytes":6703,"nevra":"naps-4-1.demo1.src"},"nevra":"naps-4-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (58, 15, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'running', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (59, 15, 'upload', 'x86_64', 'publish', 0, 'bob', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (60, 16, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (61, 16, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-5-1.demo1.src.rpm","kind":"srpm","sha256":"f2eb80894d45d7207adb2b1d0787a8aa5b480394ddaab9868c6bab8301ce905e","size_bytes":6701,"nevra":"naps-5-1.demo1.src"},"nevra":"naps-5-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (62, 16, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'running', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (63, 16, 'upload', 'x86_64', 'publish', 0, 'bob', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (64, 17, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (65, 17, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-6-1.demo1.src.rpm","kind":"srpm","sha256":"9d9f896ac3d90e2038df8756d0fdbb22ee0cc7178b17dc23e8c7c75ce7cd3ca2","size_bytes":6701,"nevra":"naps-6-1.demo1.src"},"nevra":"naps-6-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (66, 17, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'running', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (67, 17, 'upload', 'x86_64', 'publish', 0, 'bob', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (68, 18, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (69, 18, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-7-1.demo1.src.rpm","kind":"srpm","sha256":"dc98c4305fbb8a13fb56759d7c116c3aaf1b595b209f289e5bb8cd6051a82a2d","size_bytes":6701,"nevra":"naps-7-1.demo1.src"},"nevra":"naps-7-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (70, 18, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (71, 18, 'upload', 'x86_64', 'publish', 0, 'bob', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (72, 19, 'fetch', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"archive":{"name":"naps-1.0-1.src.rpm","kind":"srpm","sha256":"18e0a3fb773e63dcb9bbbce5222c3275d4bf438202871b0bab3080310bc7ec3a","size_bytes":6656,"nevra":"naps-1.0-1.src"},"spec":null,"commit":null,"commit_at":null}', 0);
INSERT INTO public.step VALUES (73, 19, 'srpm', '', 'source', 0, 'bob', 'finished', 'succeeded', NULL, false, NULL, 1, 0, NULL, NULL, NULL, '{"srpm":{"name":"naps-8-1.demo1.src.rpm","kind":"srpm","sha256":"499cb37125a4d1f51ee1079fef765f3b1aa40a314b90980b8d106369bafc08db","size_bytes":6701,"nevra":"naps-8-1.demo1.src"},"nevra":"naps-8-1.demo1.src","build_requires":[],"exclusive_arches":[],"exclude_arches":[],"noarch":false}', 0);
INSERT INTO public.step VALUES (74, 19, 'build', 'x86_64', 'build.x86_64', 0, 'bob', 'ready', NULL, NULL, false, NULL, 0, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (75, 19, 'upload', 'x86_64', 'publish', 0, 'bob', 'waiting', NULL, NULL, false, NULL, 0, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (76, 20, 'fetch', '', 'source', 0, 'ann', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (77, 20, 'srpm', '', 'source', 0, 'ann', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (78, 21, 'fetch', '', 'source', 0, 'ann', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (79, 21, 'srpm', '', 'source', 0, 'ann', 'dispatched', NULL, NULL, false, NULL, 1, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (80, 22, 'fetch', '', 'source', 3, 'ann', 'ready', NULL, NULL, false, NULL, 0, 0, NULL, NULL, NULL, NULL, 0);
INSERT INTO public.step VALUES (81, 22, 'srpm', '', 'source', 3, 'ann', 'waiting', NULL, NULL, false, NULL, 0, 0, NULL, NULL, NULL, NULL, 0);


--
-- Name: attempt_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.attempt_id_seq', 83, true);


--
-- Name: batch_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.batch_id_seq', 21, true);


--
-- Name: build_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.build_id_seq', 22, true);


--
-- Name: step_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.step_id_seq', 81, true);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: artifact pk_artifact; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT pk_artifact PRIMARY KEY (sha256);


--
-- Name: attempt pk_attempt; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT pk_attempt PRIMARY KEY (id);


--
-- Name: attempt_artifact pk_attempt_artifact; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.attempt_artifact
    ADD CONSTRAINT pk_attempt_artifact PRIMARY KEY (attempt_id, "position");


--
-- Name: batch pk_batch; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.batch
    ADD CONSTRAINT pk_batch PRIMARY KEY (id);


--
-- Name: build pk_build; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.build
    ADD CONSTRAINT pk_build PRIMARY KEY (id);


--
-- Name: closing pk_closing; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.closing
    ADD CONSTRAINT pk_closing PRIMARY KEY (label);


--
-- Name: host pk_host; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.host
    ADD CONSTRAINT pk_host PRIMARY KEY (name);


--
-- Name: owner_load pk_owner_load; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.owner_load
    ADD CONSTRAINT pk_owner_load PRIMARY KEY (owner);


--
-- Name: package_owner pk_package_owner; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.package_owner
    ADD CONSTRAINT pk_package_owner PRIMARY KEY (target, kind, name);


--
-- Name: queue pk_queue; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.queue
    ADD CONSTRAINT pk_queue PRIMARY KEY (name);


--
-- Name: repository pk_repository; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.repository
    ADD CONSTRAINT pk_repository PRIMARY KEY (path);


--
-- Name: source_secret pk_source_secret; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.source_secret
    ADD CONSTRAINT pk_source_secret PRIMARY KEY (build_id);


--
-- Name: step pk_step; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.step
    ADD CONSTRAINT pk_step PRIMARY KEY (id);


--
-- Name: attempt uq_attempt_step_id_number; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT uq_attempt_step_id_number UNIQUE (step_id, number);


--
-- Name: step uq_step_build_id_kind_arch; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.step
    ADD CONSTRAINT uq_step_build_id_kind_arch UNIQUE (build_id, kind, arch);


--
-- Name: ix_attempt_artifact_sha256; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_attempt_artifact_sha256 ON public.attempt_artifact USING btree (sha256);


--
-- Name: ix_attempt_live; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_attempt_live ON public.attempt USING btree (step_id) WHERE (status <> 'finished'::text);


--
-- Name: ix_build_batch_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_build_batch_id ON public.build USING btree (batch_id);


--
-- Name: ix_build_outcome_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_build_outcome_id ON public.build USING btree (outcome, id);


--
-- Name: ix_build_status_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_build_status_id ON public.build USING btree (status, id);


--
-- Name: ix_build_target_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_build_target_id ON public.build USING btree (target, id);


--
-- Name: ix_build_target_outcome_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_build_target_outcome_id ON public.build USING btree (target, outcome, id);


--
-- Name: ix_build_target_status_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_build_target_status_id ON public.build USING btree (target, status, id);


--
-- Name: ix_step_due; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_step_due ON public.step USING btree (not_before_at) WHERE ((status = 'waiting'::text) AND (not_before_at IS NOT NULL));


--
-- Name: ix_step_ready; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_step_ready ON public.step USING btree (queue, urgency, owner, id) WHERE (status = 'ready'::text);


--
-- Name: attempt_artifact fk_attempt_artifact_attempt_id_attempt; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.attempt_artifact
    ADD CONSTRAINT fk_attempt_artifact_attempt_id_attempt FOREIGN KEY (attempt_id) REFERENCES public.attempt(id);


--
-- Name: attempt_artifact fk_attempt_artifact_sha256_artifact; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.attempt_artifact
    ADD CONSTRAINT fk_attempt_artifact_sha256_artifact FOREIGN KEY (sha256) REFERENCES public.artifact(sha256);


--
-- Name: attempt fk_attempt_step_id_step; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT fk_attempt_step_id_step FOREIGN KEY (step_id) REFERENCES public.step(id);


--
-- Name: build fk_build_batch_id_batch; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.build
    ADD CONSTRAINT fk_build_batch_id_batch FOREIGN KEY (batch_id) REFERENCES public.batch(id);


--
-- Name: source_secret fk_source_secret_build_id_build; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.source_secret
    ADD CONSTRAINT fk_source_secret_build_id_build FOREIGN KEY (build_id) REFERENCES public.build(id);


--
-- Name: step fk_step_build_id_build; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.step
    ADD CONSTRAINT fk_step_build_id_build FOREIGN KEY (build_id) REFERENCES public.build(id);


--
-- PostgreSQL database dump complete
--


