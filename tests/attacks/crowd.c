/* What the kernel counts for all processes of one user of the host: descriptors in flight, and buffers of pipes.
 *
 *   crowd hold   uses up both, makes /builddir/results/full, and ends when /builddir/results/over is there
 *   crowd look   says whether a descriptor can be sent, "CROWD descriptor ok" or "CROWD descriptor ETOOMANYREFS", and
 *                how much a new pipe holds, "CROWD pipe BYTES"
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define AT_ONCE 253 /* SCM_MAX_FD */
#define NORMAL_PIPE_BYTES 65536
#define WAITS 1200

static int send_descriptors(int socket, int count) {
    static char control[CMSG_SPACE(AT_ONCE * sizeof(int))];
    struct iovec data = {.iov_base = "x", .iov_len = 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memset(CMSG_DATA(header), 0, count * sizeof(int)); /* standard input, again and again */
    return sendmsg(socket, &message, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int in_flight(void) {
    int pair[2], result = -EAGAIN;
    while (result == -EAGAIN && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        while (!(result = send_descriptors(pair[0], AT_ONCE)))
            ;
    return result;
}

static int new_pipe_bytes(void) {
    int ends[2];
    return pipe(ends) ? -1 : fcntl(ends[0], F_GETPIPE_SZ);
}

static int hold(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int ends[2], sent = in_flight();
    while (!pipe(ends) && fcntl(ends[0], F_GETPIPE_SZ) >= NORMAL_PIPE_BYTES)
        fcntl(ends[0], F_SETPIPE_SZ, 1 << 20);
    printf("CROWD held %s\n", strerrorname_np(-sent));
    close(open("/builddir/results/full", O_CREAT | O_WRONLY, 0644));
    for (int waits = 0; waits < WAITS && access("/builddir/results/over", F_OK); waits++)
        usleep(50000);
    return 0;
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "hold"))
        return hold();
    int pair[2];
    int result = socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? -errno : send_descriptors(pair[0], 1);
    printf("CROWD descriptor %s\nCROWD pipe %d\n", result ? strerrorname_np(-result) : "ok", new_pipe_bytes());
    return 0;
}
