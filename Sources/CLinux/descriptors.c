#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

int apus_memfd(const char *name, size_t bytes) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -errno;
    if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int apus_growing_memfd(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

int apus_seal(int fd) {
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0 ? -errno : 0;
}

bool apus_is_sealed(int fd) {
    const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & wanted) == wanted;
}

int apus_reopen_read_only(int fd) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int reopened = open(path, O_RDONLY | O_CLOEXEC);
    return reopened < 0 ? -errno : reopened;
}

int apus_eventfd(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int apus_eventfd_signal(int fd) {
    while (eventfd_write(fd, 1) < 0)
        if (errno != EINTR) return errno == EAGAIN ? 0 : -errno;
    return 0;
}

int apus_eventfd_take(int fd, uint64_t *count) {
    *count = 0;
    while (eventfd_read(fd, count) < 0)
        if (errno != EINTR) return errno == EAGAIN ? 0 : -errno;
    return 0;
}

ssize_t apus_send_descriptors(int socket, const void *bytes, size_t length, const int *descriptors, size_t count,
                              int flags) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(APUS_DESCRIPTORS_MAX * sizeof(int))];
    } control;
    struct iovec piece = {.iov_base = (void *)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count > APUS_DESCRIPTORS_MAX) return -EINVAL;
    if (count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
    }
    ssize_t sent;
    while ((sent = sendmsg(socket, &message, flags | MSG_NOSIGNAL)) < 0 && errno == EINTR) {}
    return sent < 0 ? -errno : sent;
}

ssize_t apus_receive_descriptors(int socket, void *bytes, size_t capacity, int *descriptors, size_t *count, int flags) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(APUS_DESCRIPTORS_MAX * sizeof(int))];
    } control;
    struct iovec piece = {.iov_base = bytes, .iov_len = capacity};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    size_t room = *count, got = 0;
    int failure = 0;
    *count = 0;
    ssize_t received;
    while ((received = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {}
    if (received < 0) return -errno;
    // There is room for as many as a message carries: the kernel leaves some out when there are no free ones.
    if (message.msg_flags & MSG_CTRUNC) failure = EMFILE;
    if (message.msg_flags & MSG_TRUNC) failure = EMSGSIZE;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
            if (got < room) {
                descriptors[got++] = fd;
            } else {
                close(fd);
                failure = EMSGSIZE;
            }
        }
    }
    if (failure) {
        while (got > 0) close(descriptors[--got]);
        return -failure;
    }
    *count = got;
    return received;
}

int apus_signalfd(const int *signals, size_t count) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < count; i++) sigaddset(&set, signals[i]);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error) return -error;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int apus_signalfd_take(int fd) {
    struct signalfd_siginfo info;
    ssize_t count;
    while ((count = read(fd, &info, sizeof info)) < 0)
        if (errno != EINTR) return errno == EAGAIN ? 0 : -errno;
    return (int)info.ssi_signo;
}

// Those whose default would end (or, SIGTTOU and SIGTTIN, stop) a process, and that are not sent to end one.
static const int strays[] = {SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,
                             SIGPWR, SIGSTKFLT, SIGXFSZ, SIGTTIN, SIGTTOU};

void apus_ignore_strays(void) {
    for (size_t i = 0; i < sizeof strays / sizeof *strays; i++) signal(strays[i], SIG_IGN);
    for (int s = SIGRTMIN; s <= SIGRTMAX; s++) signal(s, SIG_IGN);
}

int apus_open(const char *path, int flags, mode_t mode) {
    int fd;
    while ((fd = open(path, flags | O_CLOEXEC, mode)) < 0 && errno == EINTR) {}
    return fd < 0 ? -errno : fd;
}

int apus_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int apus_set_nonblocking(int fd, bool on) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0) return -errno;
    return 0;
}

int apus_is_writable(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -errno : (flags & O_ACCMODE) != O_RDONLY;
}

int apus_watch_folder(const char *path) {
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0) return -errno;
    if (inotify_add_watch(fd, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ONLYDIR) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int64_t apus_peer_user(int socket) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ? -errno : (int64_t)peer.uid;
}
