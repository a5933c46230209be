#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// From the kernel's documentation of its interface. The headers of the machine this is built on may be older than the
// kernel it runs on.
#define CALL_CREATE 444
#define CALL_ADD_RULE 445
#define CALL_RESTRICT 446
#define CREATE_VERSION 1u
#define RULE_PATH_BENEATH 1
#define READ_FILE (1ull << 2)
#define READ_DIR (1ull << 3)

struct ruleset {
    uint64_t files;
    uint64_t network;
    uint64_t scoped;
};

struct path_beneath {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

int apus_landlock_version(void) {
    const long version = syscall(CALL_CREATE, NULL, 0, CREATE_VERSION);
    return version < 0 ? 0 : (int)version;
}

int apus_landlock_restrict(const char *const *paths, size_t count) {
    const int version = apus_landlock_version();
    if (version < 1) return 0;
    // Everything this version knows is forbidden; what follows gives a little of it back.
    struct ruleset rules = {.files = version < 2 ? (1ull << 13) - 1 : version < 3 ? (1ull << 14) - 1
                                          : version < 5                          ? (1ull << 15) - 1
                                                                                 : (1ull << 16) - 1,
                            .network = version < 4 ? 0 : 3,
                            .scoped = version < 6 ? 0 : 3};
    const size_t size = version < 4 ? offsetof(struct ruleset, network)
                        : version < 6 ? offsetof(struct ruleset, scoped)
                                      : sizeof rules;
    const int ruleset = (int)syscall(CALL_CREATE, &rules, size, 0);
    if (ruleset < 0) return -errno;
    int result = version;
    for (size_t i = 0; i < count && result > 0; i++) {
        const int file = open(paths[i], O_PATH | O_CLOEXEC);
        if (file < 0) continue; // What is not there cannot be read anyway.
        struct stat status;
        struct path_beneath rule = {.allowed = READ_FILE, .parent = file};
        if (fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) rule.allowed |= READ_DIR;
        if (syscall(CALL_ADD_RULE, ruleset, RULE_PATH_BENEATH, &rule, 0) != 0) result = -errno;
        close(file);
    }
    if (result > 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) result = -errno;
    if (result > 0 && syscall(CALL_RESTRICT, ruleset, 0) != 0) result = -errno;
    close(ruleset);
    return result;
}
