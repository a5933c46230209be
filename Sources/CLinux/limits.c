#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static int limit(pid_t pid, int resource, uint64_t value) {
    struct rlimit64 before, after;
    if (prlimit64(pid, (enum __rlimit_resource)resource, NULL, &before) < 0) return -errno;
    // Lowering needs no privilege, raising the hard limit does.
    if (value > before.rlim_max) value = before.rlim_max;
    after.rlim_cur = value;
    after.rlim_max = value;
    return prlimit64(pid, (enum __rlimit_resource)resource, &after, NULL) < 0 ? -errno : 0;
}

int apus_limit_files(pid_t pid, uint64_t count) { return limit(pid, RLIMIT_NOFILE, count); }
int apus_limit_data(pid_t pid, uint64_t bytes) { return limit(pid, RLIMIT_DATA, bytes); }

uint64_t apus_data_limit(void) {
    struct rlimit64 now;
    return prlimit64(0, RLIMIT_DATA, NULL, &now) < 0 || now.rlim_cur == RLIM64_INFINITY ? 0 : now.rlim_cur;
}

uint64_t apus_files_limit(void) {
    struct rlimit64 now;
    return prlimit64(0, RLIMIT_NOFILE, NULL, &now) < 0 ? 0 : now.rlim_cur;
}

int apus_nice(pid_t pid, int nice) { return setpriority(PRIO_PROCESS, (id_t)pid, nice) < 0 ? -errno : 0; }

int apus_io_level(pid_t pid, int level) {
    enum { who_process = 1, class_best_effort = 2, class_shift = 13 };
    return syscall(SYS_ioprio_set, who_process, pid, class_best_effort << class_shift | level) < 0 ? -errno : 0;
}

bool apus_can_open_more(void) {
    int fd = fcntl(0, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return errno != EMFILE;
    close(fd);
    return true;
}

ssize_t apus_attribute(const char *path, const char *name, char *value, size_t capacity) {
    ssize_t count = getxattr(path, name, value, capacity);
    return count < 0 ? -errno : count;
}
