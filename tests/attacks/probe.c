/* Asks the kernel for what a sandbox must not have, and says of each what came of it: "NAME ok" or "NAME errno". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result) {
    if (result < 0)
        printf("PROBE %s %s\n", name, strerrorname_np(errno));
    else
        printf("PROBE %s ok\n", name);
    fflush(stdout);
}

static long in_child(int namespaces) {
    pid_t child = fork();
    if (!child)
        _exit(unshare(namespaces) ? errno : 0);
    int status;
    waitpid(child, &status, 0);
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

static long clone_with(unsigned long flags) {
    long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (!child)
        _exit(0);
    if (child > 0)
        waitpid(child, NULL, 0);
    return child;
}

#ifdef __x86_64__
static long compat(long number, long first, long second, long third) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory");
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}
#endif

int main(void) {
    char name[64], buffer[256] = {0};
    unsigned long arguments[3] = {40, SOCK_STREAM, 0};
    struct clone_args wanted = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    say("core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    say("domain_sysctl", open("/proc/sys/kernel/printk", O_WRONLY));
    say("user_sysctl", open("/proc/sys/user/max_user_namespaces", O_WRONLY));
    say("sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    say("kmsg", open("/dev/kmsg", O_RDWR));
    for (int family = 0; family < 50; family++) {
        sprintf(name, "family-%d", family);
        say(name, socket(family, SOCK_STREAM, 0));
        sprintf(name, "pair-%d", family);
        int pair[2];
        if (family != AF_UNIX)
            say(name, socketpair(family, SOCK_STREAM, 0, pair));
    }
    say("high-family", syscall(SYS_socket, 0x100000000L + 40, SOCK_STREAM, 0));
    for (int protocol = 0; protocol < 24; protocol++) {
        sprintf(name, "netlink-%d", protocol);
        say(name, socket(AF_NETLINK, SOCK_RAW, protocol));
    }
    say("keyctl", syscall(SYS_keyctl, 0, -3, 0, 0, 0));
    say("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -2));
    say("request_key", syscall(SYS_request_key, "user", "x", 0, -2));
    say("bpf", syscall(SYS_bpf, 0, buffer, sizeof buffer));
    say("perf", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 1));
    say("io_uring", syscall(SYS_io_uring_setup, 4, buffer));
    say("tiocsti", ioctl(-1, TIOCSTI, "x"));
    say("high-tiocsti", syscall(SYS_ioctl, -1, 0x100000000L + TIOCSTI, "x"));
    say("unshare-user", in_child(CLONE_NEWUSER));
    say("unshare-mount", in_child(CLONE_NEWNS));
    say("clone-user", clone_with(CLONE_NEWUSER));
    say("clone3-user", syscall(SYS_clone3, &wanted, sizeof wanted));
    say("mount-cgroup", mount("x", "/tmp", "cgroup", 0, "memory"));
    say("mount-cgroup2", mount("x", "/tmp", "cgroup2", 0, NULL));
    say("mount-proc", mount("x", "/tmp", "proc", 0, NULL));
    say("device", mknod("/tmp/disk", S_IFBLK | 0666, makedev(254, 0)));
#ifdef __x86_64__
    say("compat-keyctl", compat(288, 0, -3, 0));
    say("compat-socket", compat(359, 40, SOCK_STREAM, 0));
    say("compat-socketcall", compat(102, 1, (long)arguments, 0));
    say("compat-unshare", compat(310, CLONE_NEWUSER, 0, 0));
#endif
    printf("PROBE uid %u\n", geteuid());
    return 0;
}
