"""Prints one line for each question, `survey: question: yes` or `survey: question: no (…)`.

usage: survey.py SIGNALS ANSWERS, where the file SIGNALS has the lines SigBlk and SigIgn of the shell's
/proc/self/status, and ANSWERS is a new file for the lines.
"""

import ctypes
import errno
import fcntl
import locale
import mmap
import multiprocessing
import os
import pwd
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

QUESTIONS = []
libc = ctypes.CDLL(None, use_errno=True)


def question(function):
    QUESTIONS.append((function.__name__.replace("_", "-"), function))
    return function


def sh(script):
    subprocess.run(["bash", "-ec", script], check=True, timeout=20)
    return True


def said(*words):
    return subprocess.run(words, check=True, timeout=20, stdout=subprocess.PIPE, text=True).stdout.strip()


def ok(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def refused(call, *numbers):
    try:
        call()
    except OSError as error:
        return error.errno in numbers or f"errno {error.errno}"
    return "allowed"


def signals(name):
    with open(sys.argv[1]) as file:
        (line,) = [line for line in file if line.startswith(name)]
    return int(line.split()[1], 16)


# --- standard streams and devices


@question
def stdout_opens_by_name():
    return sh("echo 'by name' > /dev/stdout")


@question
def stdout_appends_by_name():
    return sh("echo 'by name' >> /dev/stdout")


@question
def stderr_opens_by_name():
    return sh("echo 'by name' > /dev/stderr")


@question
def tee_writes_to_stderr():
    return sh("echo both | tee /dev/stderr > /dev/null")


@question
def descriptors_open_by_number():
    return sh("echo 'by number' > /dev/fd/1; echo 'by number' > /proc/self/fd/2; exec 5> five; echo x > /dev/fd/5")


@question
def stdin_is_empty():
    return os.read(0, 1) == b"" and os.path.samestat(os.fstat(0), os.stat("/dev/null"))


@question
def stdin_opens_by_name():
    return sh('[ -z "$(cat /dev/stdin)" ]')


@question
def devices_are_there():
    return all(stat.S_ISCHR(os.stat(f"/dev/{name}").st_mode) for name in ("null", "zero", "full", "random", "urandom"))


@question
def no_controlling_terminal():
    return refused(lambda: os.open("/dev/tty", os.O_RDWR), errno.ENXIO)


@question
def terminals_can_be_made():
    master, slave = os.openpty()
    os.write(slave, b"x")
    return os.ttyname(slave).startswith("/dev/pts/") and os.read(master, 1) == b"x"


@question
def a_child_gets_a_terminal():
    child, master = os.forkpty()
    if not child:
        os._exit(0 if os.isatty(0) and os.open("/dev/tty", os.O_RDWR) else 1)
    return os.waitpid(child, 0)[1] == 0


# --- shared memory and IPC


@question
def shm_is_for_all():
    return stat.S_IMODE(os.stat("/dev/shm").st_mode) == 0o1777


@question
def shm_is_a_tmpfs():
    with open("/proc/mounts") as file:
        return "tmpfs" in [line.split()[2] for line in file if line.split()[1] == "/dev/shm"]


@question
def shm_can_be_written():
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        return file.write(b"x" * 2**20) == 2**20


@question
def posix_semaphores():
    return multiprocessing.Semaphore().acquire()


@question
def multiprocessing_works():
    with multiprocessing.Pool(2) as pool:
        return pool.map(abs, [-1, -2]) == [1, 2]


@question
def posix_shared_memory():
    from multiprocessing import shared_memory

    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.close()
    memory.unlink()
    return True


@question
def posix_message_queues():
    librt = ctypes.CDLL("librt.so.1", use_errno=True)
    return ok(librt.mq_open(b"/survey", os.O_CREAT | os.O_RDWR, 0o600, None)) and ok(librt.mq_unlink(b"/survey"))


@question
def sysv_shared_memory():
    made = libc.shmget(0, 4096, 0o1600)
    return ok(made) and ok(libc.shmctl(made, 0, None))


@question
def sysv_semaphores():
    made = libc.semget(0, 1, 0o1600)
    return ok(made) and ok(libc.semctl(made, 0, 0))


@question
def sysv_message_queues():
    made = libc.msgget(0, 0o1600)
    return ok(made) and ok(libc.msgctl(made, 0, None))


@question
def unix_sockets():
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(folder + "/s")
        server.listen()
        socket.socket(socket.AF_UNIX).connect(folder + "/s")
        return True


@question
def abstract_sockets():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0survey")
        server.listen()
        socket.socket(socket.AF_UNIX).connect("\0survey")
        return True


@question
def fifos():
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(folder + "/f")
        return sh(f"echo x > {folder}/f & read word < {folder}/f; [ $word = x ]")


# --- signals and processes


@question
def no_signal_is_ignored():
    assert not signals("SigIgn"), hex(signals("SigIgn"))
    return True


@question
def no_signal_is_blocked():
    assert not signals("SigBlk"), hex(signals("SigBlk"))
    return True


@question
def sigint_ends_a_child():
    child = subprocess.Popen(["sleep", "20"])
    child.send_signal(signal.SIGINT)
    return child.wait(5) == -signal.SIGINT


@question
def sigint_interrupts_python():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except KeyboardInterrupt:
        return True
    return False


@question
def sighup_and_sigterm_end_a_child():
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        child = subprocess.Popen(["sleep", "20"])
        child.send_signal(number)
        if child.wait(5) != -number:
            return number.name
    return True


@question
def sigpipe_ends_a_writer():
    return sh("yes | head -n 1 > /dev/null; [ ${PIPESTATUS[0]} = 141 ]")


@question
def orphans_are_reaped():
    orphan = said("sh", "-c", "sleep 0.1 > /dev/null & echo $!")
    time.sleep(0.5)
    return not os.path.exists(f"/proc/{orphan}")


@question
def children_can_be_traced():
    child = os.fork()
    if not child:
        libc.ptrace(0, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    stopped = os.WIFSTOPPED(status)
    return stopped and ok(libc.ptrace(7, child, 0, 0)) and os.waitpid(child, 0)[1] == 0


@question
def memory_of_a_child_can_be_read():
    child = subprocess.Popen(["sleep", "20"])
    try:
        with open(f"/proc/{child.pid}/maps") as file:
            return bool(file.read(10))
    finally:
        child.kill()
        child.wait()


@question
def threads_and_processes():
    threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sh("for i in $(seq 50); do sleep 0.1 & done; wait")


@question
def priority_can_be_lowered():
    return said("nice", "-n", "5", "nice") == str(os.nice(0) + 5)


@question
def affinity_can_be_set():
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    return bool(cpus)


@question
def other_user_namespaces():
    return sh("unshare --user true")


@question
def a_refusal_of_namespaces_has_an_errno():
    return libc.unshare(0x10000000) == 0 or ctypes.get_errno() == errno.EPERM or ctypes.get_errno()


@question
def devices_cannot_be_made():
    return refused(lambda: os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3)), errno.EPERM)


# --- the machine


@question
def sys_is_there():
    return os.path.isdir("/sys/devices/system") and os.path.isdir("/sys/class") and os.path.isdir("/sys/kernel")


@question
def sys_cannot_be_written():
    return refused(lambda: os.mkdir("/sys/made"), errno.EROFS, errno.EACCES, errno.EPERM)


@question
def sys_names_the_processors():
    return all(os.path.exists(f"/sys/devices/system/cpu/{name}") for name in ("online", "possible", "present", "cpu0"))


@question
def lscpu_works():
    return "CPU(s):" in said("lscpu")


@question
def nproc_and_getconf_agree():
    return said("nproc") == str(len(os.sched_getaffinity(0))) and int(said("getconf", "_NPROCESSORS_ONLN")) > 0


@question
def proc_is_usual():
    names = ("cpuinfo", "meminfo", "mounts", "stat", "uptime", "loadavg", "version", "filesystems", "self/status")
    return all(open(f"/proc/{name}").read(1) for name in names)


@question
def sysctls_can_be_read():
    names = ("kernel/core_pattern", "kernel/pid_max", "kernel/osrelease", "vm/overcommit_memory", "fs/file-max")
    return all(open(f"/proc/sys/{name}").read(1) for name in names)


@question
def sysctls_cannot_be_written():
    return refused(lambda: open("/proc/sys/kernel/core_pattern", "w"), errno.EROFS, errno.EACCES)


# --- names and network


@question
def own_name_resolves():
    return bool(socket.gethostbyname(socket.gethostname()))


@question
def own_name_is_in_hosts():
    return bool(said("getent", "hosts", socket.gethostname()))


@question
def own_name_has_an_address_of_its_own():
    with socket.socket() as server:
        server.bind((socket.gethostname(), 0))
        return True


@question
def own_full_name():
    return bool(socket.getfqdn()) and bool(said("hostname", "-f"))


@question
def localhost_resolves():
    return socket.gethostbyname("localhost") == "127.0.0.1"


def connects(family, address):
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind((address, 0))
        server.listen()
        client.connect(server.getsockname()[:2])
        return True


@question
def loopback_ipv4():
    return connects(socket.AF_INET, "127.0.0.1")


@question
def loopback_ipv6():
    return connects(socket.AF_INET6, "::1")


@question
def udp_over_loopback():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.sendto(b"x", one.getsockname())
        one.settimeout(5)
        return one.recv(1) == b"x"


@question
def interfaces_can_be_listed():
    return "lo" in [name for _, name in socket.if_nameindex()]


# --- user, environment, limits


@question
def the_user_has_a_name():
    user = pwd.getpwuid(os.getuid())
    return said("id", "-un") == user.pw_name and bool(said("id", "-gn"))


@question
def the_user_is_not_root():
    return os.getuid() == os.geteuid() != 0 and pwd.getpwnam("root").pw_uid == 0


@question
def home_can_be_written():
    with tempfile.TemporaryFile(dir=os.environ["HOME"]):
        return True


@question
def temporary_folders_are_for_all():
    return all(stat.S_IMODE(os.stat(name).st_mode) == 0o1777 for name in ("/tmp", "/var/tmp"))


@question
def temporary_files_can_run():
    with tempfile.TemporaryDirectory() as folder:
        return sh(f"printf '#!/bin/sh\\nexit 0\\n' > {folder}/run; chmod +x {folder}/run; {folder}/run")


@question
def umask_is_022():
    mask = os.umask(0)
    os.umask(mask)
    return mask == 0o022 or oct(mask)


@question
def locale_is_utf_8():
    locale.setlocale(locale.LC_ALL, "")
    return "UTF" in locale.nl_langinfo(locale.CODESET).upper() and sys.getfilesystemencoding() == "utf-8"


@question
def time_zone_is_utc():
    return time.localtime(0).tm_hour == 0 and time.tzname[0] in ("UTC", "GMT")


@question
def a_thousand_files_can_be_open():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1024


@question
def the_stack_has_8_mib():
    return resource.getrlimit(resource.RLIMIT_STACK)[0] in (8 * 2**20, resource.RLIM_INFINITY)


@question
def address_space_is_not_limited():
    return resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@question
def core_dumps_can_be_allowed():
    return resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY


@question
def memory_is_not_spared():
    return int(open("/proc/self/oom_score_adj").read()) >= 0


# --- files


@question
def files_can_be_locked():
    with tempfile.TemporaryFile(dir=".") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True


@question
def hard_links_and_symlinks():
    with tempfile.TemporaryDirectory(dir=".") as folder:
        open(folder + "/one", "w").close()
        os.link(folder + "/one", folder + "/two")
        os.symlink("one", folder + "/three")
        return os.stat(folder + "/three").st_nlink == 2


@question
def extended_attributes():
    with tempfile.NamedTemporaryFile(dir=".") as file:
        os.setxattr(file.name, "user.survey", b"x")
        return os.getxattr(file.name, "user.survey") == b"x"


@question
def sparse_files():
    with tempfile.NamedTemporaryFile(dir=".") as file:
        file.truncate(2**30)
        return os.stat(file.name).st_blocks * 512 < 2**20


@question
def space_can_be_reserved():
    with tempfile.TemporaryFile(dir=".") as file:
        os.posix_fallocate(file.fileno(), 0, 2**20)
        return True


@question
def files_without_a_name():
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))
    return True


@question
def odd_file_names():
    with tempfile.TemporaryDirectory(dir=".") as folder:
        names = ["a" * 255, "A" * 255, "ü\n\t", "*"]
        for name in names:
            open(os.path.join(folder, name), "w").close()
        return sorted(os.listdir(folder)) == sorted(names)


@question
def file_times_are_fine():
    with tempfile.NamedTemporaryFile(dir=".") as file:
        os.utime(file.name, ns=(1, 1_000_000_001))
        return os.stat(file.name).st_mtime_ns == 1_000_000_001


@question
def code_can_be_made_at_run_time():
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.close()
    return True


@question
def pages_can_be_locked():
    return ok(libc.mlock(ctypes.create_string_buffer(4096), 4096))


# --- other interfaces of the kernel


@question
def inotify():
    made = libc.inotify_init()
    return ok(made) and ok(libc.inotify_add_watch(made, b".", 0x100))


@question
def epoll():
    one, other = socket.socketpair()
    with select.epoll() as poll, one, other:
        poll.register(one, select.EPOLLOUT)
        return len(poll.poll(1)) == 1


@question
def event_timer_and_signal_descriptors():
    return ok(libc.eventfd(0, 0)) and ok(libc.timerfd_create(1, 0))


@question
def interval_timers():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    return signal.sigtimedwait([signal.SIGUSR1], 0.1) is None


@question
def anonymous_files():
    return ok(libc.memfd_create(b"survey", 0))


@question
def filters_of_system_calls():
    return sh("grep -q '^Seccomp:' /proc/self/status") and ok(libc.prctl(21, 0, 0, 0, 0))


def main(answers):
    for name, function in QUESTIONS:
        try:
            answer = function()
        except KeyboardInterrupt:
            answer = "a late signal"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        shown = "yes" if answer is True else f"no ({answer})"
        print(f"survey: {name}: {shown}", flush=True)
        answers.write(f"{name}: {shown}\n")


if __name__ == "__main__":
    with open(sys.argv[2], "x") as file:
        main(file)
