#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

int apus_allocate(int descriptor, int64_t offset, int64_t length) {
    return fallocate(descriptor, FALLOC_FL_KEEP_SIZE, offset, length) == 0 ? 0 : -errno;
}

int apus_start_writeback(int descriptor, int64_t offset, int64_t length) {
    return sync_file_range(descriptor, offset, length, SYNC_FILE_RANGE_WRITE) == 0 ? 0 : -errno;
}

int apus_sync_filesystem(int descriptor) { return syncfs(descriptor) == 0 ? 0 : -errno; }

int apus_try_lock(int descriptor) {
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    return fcntl(descriptor, F_OFD_SETLK, &range) == 0 ? 0 : -errno;
}

int apus_lock_holder(int descriptor) {
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    if (fcntl(descriptor, F_GETLK, &range) != 0) return -errno - 1;
    if (range.l_type == F_UNLCK) return 0;
    return range.l_pid > 0 ? range.l_pid : -1;
}

void apus_set_thread_name(const char *name) { (void)pthread_setname_np(pthread_self(), name); }

int apus_direct_flag(void) { return O_DIRECT; }
