/* The helper that prepares a sandbox, outside of it and inside. It is linked statically, so the same file runs on the
 * host and inside a root that has none of the host's libraries.
 *
 *   enter outside [options] -- COMMAND ...
 *     Prepares everything that needs the host's root, gives that up, and becomes COMMAND (bubblewrap):
 *       --cgroup FILE      join the group that this cgroup.procs file belongs to
 *       --fsize BYTES      the largest file that may be written
 *       --shm BYTES        show a new tmpfs of that size, writable for all, as STAGE/shm
 *       --ptys N           show new pseudo-terminals, at most N at a time, as STAGE/pts
 *       --nproc N          the number of processes, where there is no cgroup to count them
 *       --as BYTES         the address space of each process, likewise
 *       --map BASE COUNT   a user namespace of its own, in which uid 0 is the host's uid BASE
 *       --user UID HOST    with --map: uid UID inside is the host's uid HOST, and not BASE + UID
 *       --bind PATH        show PATH as STAGE/0, the next one as STAGE/1, and so on
 *       --overlay OPTIONS  mount an overlay on STAGE/overlay0, the next one on STAGE/overlay1, and so on
 *       --seccomp FILE     open the filter as descriptor FILTER_FD for bubblewrap's --seccomp
 *   enter inside UID MARK -- COMMAND ...
 *     Makes the file MARK, becomes the unprivileged user UID without any capability, and becomes COMMAND.
 *
 * Exit codes: 125 for a sandbox that did not come up, 126 and 127 for a COMMAND that cannot be started.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A directory that every system has and leaves empty. The staged paths cover it in this mount namespace alone. */
#define STAGE "/mnt"
#define FILTER_FD 9
#define MOST 256
/* User namespaces are accounted to their owner. Each gets its own owner, from the ids after the mapped ones, so that
 * one sandbox cannot use up the inotify instances and the like of all sandboxes, or of the host's root. */
#define OWNERS 65536
/* The ids that a host gives to its own users and services, its root among them. */
#define COUNT_OF_HOST_IDS 65536

static void fail(const char *format, ...) {
    int error = errno;
    va_list words;
    va_start(words, format);
    fputs("enter: ", stderr);
    vfprintf(stderr, format, words);
    fprintf(stderr, ": %s\n", strerror(error));
    exit(125);
}

static unsigned long long number(const char *text) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end) {
        errno = EINVAL;
        fail("'%s' is not a number", text);
    }
    return value;
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail("%s", path);
    close(fd);
}

static void limit(int what, const char *text) {
    struct rlimit both = {.rlim_cur = number(text), .rlim_max = number(text)};
    if (setrlimit(what, &both))
        fail("a resource limit of %s", text);
}

/* The soft limit of open files is that of mock's builds; the soft limit of the stack is that of every login. */
#define OPEN_FILES 10240
#define STACK_BYTES (8u << 20)

static void soft_limit(int what, rlim_t value) {
    struct rlimit both;
    if (getrlimit(what, &both))
        return;
    both.rlim_cur = both.rlim_max == RLIM_INFINITY || value < both.rlim_max ? value : both.rlim_max;
    setrlimit(what, &both);
}

/* A worker may have been started with signals ignored or blocked, and with another umask and other limits; a build
 * expects the defaults. */
static void reset_process(void) {
    static const unsigned long as_by_default[8]; /* a kernel's struct sigaction: SIG_DFL, no flags, an empty mask */
    sigset_t none;
    umask(022);
    soft_limit(RLIMIT_NOFILE, OPEN_FILES);
    soft_limit(RLIMIT_STACK, STACK_BYTES);
    /* The C library refuses the two signals that it uses itself, so the kernel is asked. */
    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        syscall(SYS_rt_sigaction, signal_number, &as_by_default, NULL, 8);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A service may be spared when memory is short; its builds are not. */
static void spare_no_more(void) {
    char text[32] = {0};
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && text[0] == '-' && pwrite(fd, "0", 1, 0) != 1)
        fail("/proc/self/oom_score_adj");
    close(fd);
}

static void keep_only(unsigned int capability) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    data[0].effective = data[0].permitted = 1u << capability;
    if (syscall(SYS_capset, &header, data))
        fail("capabilities");
}

static void drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, data))
        fail("capabilities");
}

static void run_command(char **command) {
    execvp(command[0], command);
    int error = errno;
    fprintf(stderr, "enter: %s: %s\n", command[0], strerror(error));
    exit(error == ENOENT ? 127 : 126);
}

/* --- the host's side -------------------------------------------------------------------------------------------- */

static void stage(char **binds, int count, int overlays, int has_shm, int has_ptys) {
    int sources[MOST];
    char name[64], source[64];
    /* The paths are opened before the stage covers a directory that one of them may be in. */
    for (int i = 0; i < count; i++)
        if ((sources[i] = open(binds[i], O_PATH | O_CLOEXEC)) < 0)
            fail("%s", binds[i]);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
        fail("a private view of the host's mounts");
    if (mount("stage", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m"))
        fail("a tmpfs on " STAGE);
    for (int i = 0; i < count; i++) {
        struct stat found;
        if (fstat(sources[i], &found))
            fail("%s", binds[i]);
        snprintf(name, sizeof name, STAGE "/%d", i);
        int made = S_ISDIR(found.st_mode) ? mkdir(name, 0755) : mknod(name, S_IFREG | 0644, 0);
        if (made)
            fail("%s", name);
        snprintf(source, sizeof source, "/proc/self/fd/%d", sources[i]);
        if (mount(source, name, NULL, MS_BIND | MS_REC, NULL))
            fail("%s on %s", binds[i], name);
        close(sources[i]);
    }
    for (int i = 0; i < overlays; i++) {
        snprintf(name, sizeof name, STAGE "/overlay%d", i);
        if (mkdir(name, 0755))
            fail("%s", name);
    }
    if (has_shm && mkdir(STAGE "/shm", 0755))
        fail(STAGE "/shm");
    if (has_ptys && mkdir(STAGE "/pts", 0755))
        fail(STAGE "/pts");
}

struct ids {
    unsigned long long base, count, user, host;
    int has_user;
};

/* The kernel's text for uid_map and gid_map. Without a user there is one range, else the user's lies between two. */
static void write_map(char *map, size_t size, const struct ids *ids) {
    if (!ids->has_user)
        snprintf(map, size, "0 %llu %llu", ids->base, ids->count);
    else
        snprintf(map, size, "0 %llu %llu\n%llu %llu 1\n%llu %llu %llu", ids->base, ids->user, ids->user, ids->host,
                 ids->user + 1, ids->base + ids->user + 1, ids->count - ids->user - 1);
}

/* A child that stays the host's root writes the maps: a process that has entered the namespace may not. */
static void enter_user_namespace(const struct ids *ids) {
    int go[2], status;
    if (ids->base < COUNT_OF_HOST_IDS) {
        errno = EINVAL;
        fail("a map to %llu: the root inside would be one of the host's own users", ids->base);
    }
    if (ids->has_user &&
        (!ids->user || ids->user >= ids->count - 1 || ids->host < ids->base + ids->count + OWNERS)) {
        errno = EINVAL;
        fail("--user %llu %llu: the first must be an id within the map, the second one after the map and its owners",
             ids->user, ids->host);
    }
    char byte = 0, path[64], map[256];
    pid_t self = getpid();
    if (pipe2(go, O_CLOEXEC))
        fail("a pipe");
    pid_t writer = fork();
    if (writer < 0)
        fail("a process for the maps");
    if (!writer) {
        close(go[1]);
        if (read(go[0], &byte, 1) != 1)
            _exit(125);
        write_map(map, sizeof map, ids);
        snprintf(path, sizeof path, "/proc/%d/gid_map", self);
        put(path, map);
        snprintf(path, sizeof path, "/proc/%d/uid_map", self);
        put(path, map);
        _exit(0);
    }
    close(go[0]);
    id_t owner = ids->base + ids->count + self % OWNERS;
    /* This process is still privileged, in case a security module lets only such processes make user namespaces. */
    if (setgroups(0, NULL) || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || setresgid(owner, owner, owner) ||
        setresuid(owner, owner, owner))
        fail("becoming the owner of a user namespace");
    keep_only(CAP_SYS_ADMIN);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        fail("a user namespace; see whether user.max_user_namespaces is 0");
    if (write(go[1], "x", 1) != 1)
        fail("the process for the maps");
    close(go[1]);
    if (waitpid(writer, &status, 0) != writer || status) {
        errno = EPERM;
        fail("the maps of the user namespace");
    }
    if (setresgid(0, 0, 0) || setresuid(0, 0, 0))
        fail("becoming the root of the user namespace");
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void mount_overlay(const char *options, int index) {
    char target[64], all[4096];
    snprintf(target, sizeof target, STAGE "/overlay%d", index);
    /* "volatile" avoids syncs of files that are removed anyway; kernels before 5.10 do not know it. */
    if (snprintf(all, sizeof all, "%s,volatile", options) >= (int)sizeof all) {
        errno = ENAMETOOLONG;
        fail("overlay options");
    }
    if (mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, all) &&
        mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options))
        fail("mounting an overlay");
}

static void mount_shm(const char *bytes) {
    char options[64];
    snprintf(options, sizeof options, "mode=1777,size=%llu", number(bytes));
    if (mount("shm", STAGE "/shm", "tmpfs", MS_NOSUID | MS_NODEV, options))
        fail("a tmpfs on " STAGE "/shm");
}

/* A host has 3,072 for all of its containers together. */
static void mount_ptys(const char *most) {
    char options[64];
    snprintf(options, sizeof options, "newinstance,ptmxmode=0666,mode=620,max=%llu", number(most));
    if (mount("devpts", STAGE "/pts", "devpts", MS_NOSUID | MS_NOEXEC, options))
        fail("a devpts on " STAGE "/pts");
}

static void outside(char **words) {
    char *binds[MOST], *overlays[MOST], *filter = NULL, *shm = NULL, *ptys = NULL;
    int bind_count = 0, overlay_count = 0;
    struct ids ids = {0};
    limit(RLIMIT_CORE, "0");
    for (; *words && strcmp(*words, "--"); words += 2) {
        if (!words[1])
            break;
        if (!strcmp(*words, "--cgroup"))
            put(words[1], "0");
        else if (!strcmp(*words, "--fsize"))
            limit(RLIMIT_FSIZE, words[1]);
        else if (!strcmp(*words, "--shm"))
            shm = words[1];
        else if (!strcmp(*words, "--ptys"))
            ptys = words[1];
        else if (!strcmp(*words, "--nproc"))
            limit(RLIMIT_NPROC, words[1]);
        else if (!strcmp(*words, "--as"))
            limit(RLIMIT_AS, words[1]);
        else if (!strcmp(*words, "--seccomp"))
            filter = words[1];
        else if (!strcmp(*words, "--bind") && bind_count < MOST)
            binds[bind_count++] = words[1];
        else if (!strcmp(*words, "--overlay") && overlay_count < MOST)
            overlays[overlay_count++] = words[1];
        else if (!strcmp(*words, "--map") && words[2]) {
            ids.base = number(words[1]), ids.count = number(words[2]);
            words++;
        } else if (!strcmp(*words, "--user") && words[2]) {
            ids.user = number(words[1]), ids.host = number(words[2]), ids.has_user = 1;
            words++;
        } else {
            errno = EINVAL;
            fail("option '%s'", *words);
        }
    }
    if (!*words || !words[1]) {
        errno = EINVAL;
        fail("no command after --");
    }
    if (ids.has_user && !ids.count) {
        errno = EINVAL;
        fail("--user without --map");
    }
    reset_process();
    spare_no_more();
    if (filter) {
        int fd = open(filter, O_RDONLY);
        if (fd < 0 || dup2(fd, FILTER_FD) < 0)
            fail("%s", filter);
        if (fd != FILTER_FD)
            close(fd);
    }
    if (unshare(CLONE_NEWNS))
        fail("a mount namespace");
    if (bind_count || overlay_count || shm || ptys)
        stage(binds, bind_count, overlay_count, shm != NULL, ptys != NULL);
    if (ids.count)
        enter_user_namespace(&ids);
    /* Keys belong to sessions and to users: the inside must not find any of the worker's. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
        fail("a session keyring");
    for (int i = 0; i < overlay_count; i++)
        mount_overlay(overlays[i], i);
    if (shm)
        mount_shm(shm);
    if (ptys)
        mount_ptys(ptys);
    run_command(words + 1);
}

/* --- the root's side -------------------------------------------------------------------------------------------- */

static void inside(char **words) {
    if (!words[0] || !words[1] || !words[2] || strcmp(words[2], "--") || !words[3]) {
        errno = EINVAL;
        fail("usage: enter inside UID MARK -- COMMAND");
    }
    id_t user = number(words[0]);
    int mark = open(words[1], O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (mark < 0)
        fail("%s", words[1]);
    close(mark);
    if (syscall(SYS_close_range, 3u, ~0u, 0u) && errno != ENOSYS)
        fail("closing descriptors");
    reset_process();
    for (int capability = 0; capability < 64; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    /* A person's shell needs a session of its own in this pid namespace for job control. A step has no terminal. */
    if (isatty(0) && (setsid() < 0 || ioctl(0, TIOCSCTTY, 0)))
        fail("the terminal of the session");
    if (setgroups(0, NULL) || setresgid(user, user, user) || setresuid(user, user, user))
        fail("becoming user %u", (unsigned)user);
    drop_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail("no new privileges");
    run_command(words + 3);
}

int main(int count, char **words) {
    if (count > 2 && !strcmp(words[1], "outside"))
        outside(words + 2);
    if (count > 2 && !strcmp(words[1], "inside"))
        inside(words + 2);
    fputs("usage: enter outside [options] -- COMMAND ... | enter inside UID MARK -- COMMAND ...\n", stderr);
    return 125;
}
