#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

int apus_epoll(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int apus_epoll_watch(int epoll, int fd, uint32_t tag, bool writes, bool change) {
    struct epoll_event event = {.events = EPOLLIN | (writes ? (uint32_t)EPOLLOUT : 0), .data.u32 = tag};
    return epoll_ctl(epoll, change ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int apus_epoll_wait(int epoll, struct apus_readiness *ready, int capacity, uint64_t nanoseconds) {
    struct epoll_event events[256];
    struct timespec timeout = {.tv_sec = (time_t)(nanoseconds / 1000000000u), .tv_nsec = (long)(nanoseconds % 1000000000u)};
    int count = epoll_pwait2(epoll, events, capacity < 256 ? capacity : 256, &timeout, NULL);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int index = 0; index < count; index++) {
        uint32_t bits = events[index].events;
        ready[index].events = ((bits & EPOLLIN) ? APUS_READABLE : 0) | ((bits & EPOLLOUT) ? APUS_WRITABLE : 0)
            | ((bits & (EPOLLERR | EPOLLHUP)) ? APUS_FAILED | APUS_READABLE : 0);
        ready[index].tag = events[index].data.u32;
    }
    return count;
}

const void *apus_find(const void *haystack, size_t length, const void *needle, size_t needle_length) {
    return memmem(haystack, length, needle, needle_length);
}
