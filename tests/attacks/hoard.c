/* What the kernel has for all processes of a host together, or counts for no process: taken, and looked at.
 *
 *   hoard netlink   fills the queues of sockets, without end
 *   hoard accepts   makes connections that no process accepts, without end
 *   hoard locks     locks parts of files, without end
 *   hoard ofd       likewise, for open files and not for a process
 *   hoard tcp       fills the buffers of connections, says "HOARD tcp BYTES" and waits
 *   hoard udp       likewise
 *   hoard ptys      says "HOARD pty ANSWER" of both ends of a pseudo-terminal, and "HOARD ptys N ERROR": how many it could
 *                   open
 *   hoard aio       says "HOARD aio ERROR" of a new context for asynchronous input and output
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SOCKETS 400
#define DATAGRAMS 64
#define BACKLOG 4000
#define TRIES 3
#define FILES 4000

static char data[1 << 20];

static void take_netlink(void) {
    struct {
        struct nlmsghdr header;
        char rest[4000]; /* comes back with the answer */
    } unknown = {.header = {.nlmsg_len = sizeof unknown, .nlmsg_type = 255, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int bytes = 1 << 26, s;
    while ((s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)) >= 0) {
        setsockopt(s, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
        for (int i = 0; i < 4000; i++)
            sendto(s, &unknown, sizeof unknown, MSG_DONTWAIT, (void *)&kernel, sizeof kernel);
    }
}

static void take_locks(int command) {
    int files[FILES];
    for (int i = 0; i < FILES; i++) {
        char name[64];
        snprintf(name, sizeof name, "/tmp/locked%d", i);
        files[i] = open(name, O_RDWR | O_CREAT, 0644);
    }
    /* In many files: for each lock the kernel looks at all others of its file. */
    for (off_t at = 1L << 40; at > 0; at -= 2)
        for (int i = 0; i < FILES; i++) {
            struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
            fcntl(files[i], command, &lock);
        }
}

static struct sockaddr_in loopback(int host) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK + host)}};
    return address;
}

static int bound(int kind, struct sockaddr_in *address) {
    socklen_t size = sizeof *address;
    int s = socket(AF_INET, kind, 0);
    if (s < 0 || bind(s, (void *)address, size) || getsockname(s, (void *)address, &size))
        return -1;
    return s;
}

static void take_accepts(void) {
    for (int host = 0, s = 0; s >= 0; host++) {
        struct sockaddr_in to = loopback(host), from = loopback(1 << 16 | host);
        if ((s = bound(SOCK_STREAM, &to)) < 0 || listen(s, BACKLOG))
            return;
        for (int i = 0; i < BACKLOG; i++) {
            int client = socket(AF_INET, SOCK_STREAM, 0);
            from.sin_port = 0;
            if (bind(client, (void *)&from, sizeof from) || connect(client, (void *)&to, sizeof to))
                i = BACKLOG;
            close(client);
        }
    }
}

static long fill(int s) {
    long sent = 0, part;
    for (int tries = 0; tries < TRIES; tries++)
        while ((part = send(s, data, sizeof data, MSG_DONTWAIT)) > 0)
            sent += part, tries = 0;
    return sent;
}

static long take_tcp(void) {
    struct sockaddr_in to = loopback(0);
    int s = bound(SOCK_STREAM, &to);
    long sent = 0;
    listen(s, SOCKETS);
    for (int i = 0; i < SOCKETS; i++) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (!connect(client, (void *)&to, sizeof to) && accept(s, NULL, NULL) >= 0)
            sent += fill(client);
    }
    return sent;
}

static long take_udp(void) {
    int from = socket(AF_INET, SOCK_DGRAM, 0), bytes = 1 << 26, received;
    long sent = 0;
    for (int i = 0; i < SOCKETS; i++) {
        struct sockaddr_in to = loopback(0);
        int s = bound(SOCK_DGRAM, &to);
        setsockopt(s, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
        for (int n = 0; n < DATAGRAMS; n++)
            sendto(from, data, 60000, MSG_DONTWAIT, (void *)&to, sizeof to);
        /* A datagram that found no room is gone. */
        while ((received = recv(s, data, 1, MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC)) > 0) {
            sent += received;
            break;
        }
    }
    return sent;
}

/* What comes out of the other end. */
static const char *answer_of_pty(void) {
    static char text[8];
    int ours = posix_openpt(O_RDWR | O_NOCTTY);
    if (ours < 0 || grantpt(ours) || unlockpt(ours))
        return strerrorname_np(errno);
    int theirs = open(ptsname(ours), O_RDWR | O_NOCTTY);
    if (theirs < 0 || write(theirs, "ok", 2) != 2 || read(ours, text, 2) != 2)
        return strerrorname_np(errno);
    close(theirs);
    close(ours);
    return text;
}

static int count_ptys(void) {
    int count = 0;
    while (open("/dev/ptmx", O_RDWR | O_NOCTTY) >= 0)
        count++;
    return count;
}

int main(int count, char **words) {
    struct rlimit limit;
    aio_context_t context = 0;
    const char *what = count > 1 ? words[1] : "";
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (!strcmp(what, "netlink"))
        take_netlink(), pause();
    else if (!strcmp(what, "accepts"))
        take_accepts(), pause();
    else if (!strcmp(what, "locks") || !strcmp(what, "ofd"))
        take_locks(!strcmp(what, "ofd") ? F_OFD_SETLK : F_SETLK);
    else if (!strcmp(what, "ptys")) {
        printf("HOARD pty %s\n", answer_of_pty());
        int found = count_ptys();
        printf("HOARD ptys %d %s\n", found, strerrorname_np(errno));
    } else if (!strcmp(what, "aio")) {
        long done = syscall(SYS_io_setup, 1, &context);
        printf("HOARD aio %s\n", done ? strerrorname_np(errno) : "ok");
    } else {
        printf("HOARD %s %ld\n", what, !strcmp(what, "tcp") ? take_tcp() : take_udp());
        fflush(stdout);
        close(open("/builddir/results/full", O_CREAT | O_WRONLY, 0644));
        for (int waits = 0; waits < 600 && access("/builddir/results/over", F_OK); waits++)
            usleep(50000);
    }
    return 0;
}
