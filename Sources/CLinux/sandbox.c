#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the sandbox knows x86-64 and arm64"
#endif

// Calls that neither reach beyond this process nor change anything outside it, as the runtime, the event loop and the
// dynamic loader make them.
static const uint16_t allowed[] = {
    SYS_read, SYS_pread64, SYS_readv, SYS_preadv, SYS_write, SYS_writev, SYS_close, SYS_lseek, SYS_fstat, SYS_statx,
    SYS_newfstatat, SYS_faccessat, SYS_readlinkat, SYS_getdents64, SYS_fcntl, SYS_dup, SYS_dup3, SYS_fadvise64,
    SYS_fstatfs, SYS_statfs, SYS_getcwd,
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_brk, SYS_mincore, SYS_membarrier,
    SYS_futex, SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address, SYS_sched_yield, SYS_sched_getaffinity,
    SYS_getcpu, SYS_gettid, SYS_getpid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_uname,
    SYS_sysinfo, SYS_getrandom, SYS_getrusage, SYS_times, SYS_restart_syscall,
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_timer_create,
    SYS_timer_settime, SYS_timer_gettime, SYS_timer_delete, SYS_timerfd_create, SYS_timerfd_settime,
    SYS_timerfd_gettime, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2, SYS_ppoll, SYS_pselect6,
    SYS_recvmsg, SYS_recvfrom, SYS_sendmsg, SYS_sendto, SYS_getsockopt, SYS_setsockopt, SYS_getsockname,
    SYS_getpeername, SYS_shutdown,
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigsuspend,
    SYS_sigaltstack, SYS_exit, SYS_exit_group,
#ifdef SYS_rseq
    SYS_rseq,
#endif
#ifdef SYS_faccessat2
    SYS_faccessat2,
#endif
#ifdef SYS_epoll_pwait2
    SYS_epoll_pwait2,
#endif
#if defined(__x86_64__)
    SYS_arch_prctl, SYS_epoll_wait, SYS_poll, SYS_select, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_time,
    SYS_getrlimit, SYS_dup2,
#endif
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n)) // low half on little-endian machines
#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offset))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, (uint32_t)(value))
#define REFUSE(error) ANSWER(SECCOMP_RET_ERRNO | ((error) & SECCOMP_RET_DATA))
// Over the next `count` instructions when the call is not `number`.
#define UNLESS_CALL(number, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(number), 0, (count))

static int install(void) {
    struct sock_filter program[64 + 2 * COUNT(allowed)];
    size_t length = 0;
    const uint32_t self = (uint32_t)getpid();
    const uint32_t writing = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
#define ADD(...)                                                                                                       \
    do {                                                                                                               \
        const struct sock_filter instructions[] = {__VA_ARGS__};                                                       \
        for (size_t i = 0; i < COUNT(instructions); i++) program[length++] = instructions[i];                          \
    } while (0)

    ADD(LOAD(offsetof(struct seccomp_data, arch)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCHITECTURE, 1, 0),
        ANSWER(SECCOMP_RET_KILL_PROCESS), LOAD(offsetof(struct seccomp_data, nr)));
    // Opening for reading only.
    ADD(UNLESS_CALL(SYS_openat, 4), LOAD(ARGUMENT(2)), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, writing, 0, 1),
        REFUSE(EACCES), ANSWER(SECCOMP_RET_ALLOW));
#ifdef SYS_open
    ADD(UNLESS_CALL(SYS_open, 4), LOAD(ARGUMENT(1)), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, writing, 0, 1),
        REFUSE(EACCES), ANSWER(SECCOMP_RET_ALLOW));
#endif
    // Threads, but no processes. clone3 hides its flags in memory: the C library falls back to clone.
    ADD(UNLESS_CALL(SYS_clone, 4), LOAD(ARGUMENT(0)), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0),
        REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
#ifdef SYS_clone3
    ADD(UNLESS_CALL(SYS_clone3, 1), REFUSE(ENOSYS));
#endif
    // Signals to this process only (abort and the budget need that).
    ADD(UNLESS_CALL(SYS_kill, 4), LOAD(ARGUMENT(0)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, self, 1, 0), REFUSE(EPERM),
        ANSWER(SECCOMP_RET_ALLOW));
    ADD(UNLESS_CALL(SYS_tgkill, 4), LOAD(ARGUMENT(0)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, self, 1, 0), REFUSE(EPERM),
        ANSWER(SECCOMP_RET_ALLOW));
    // Limits are read, not set: the third argument is a null pointer.
    ADD(UNLESS_CALL(SYS_prlimit64, 6), LOAD(ARGUMENT(2)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3),
        LOAD(ARGUMENT(2) + 4), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), ANSWER(SECCOMP_RET_ALLOW), REFUSE(EPERM));
    ADD(UNLESS_CALL(SYS_prctl, 4), LOAD(ARGUMENT(0)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_NAME, 1, 0),
        REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
    ADD(UNLESS_CALL(SYS_ioctl, 4), LOAD(ARGUMENT(1)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FIONREAD, 1, 0),
        REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW));
    for (size_t i = 0; i < COUNT(allowed); i++) ADD(UNLESS_CALL(allowed[i], 1), ANSWER(SECCOMP_RET_ALLOW));
    ADD(REFUSE(EPERM));

    const struct sock_fprog filter = {.len = (unsigned short)length, .filter = program};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) != 0) return -errno;
    return 0;
}

int apus_sandbox_enter(uint64_t memory) {
    const struct rlimit none = {0, 0};
    const struct rlimit data = {memory, memory};
    if (setrlimit(RLIMIT_CORE, &none) != 0) return -errno;
    if (memory != 0 && setrlimit(RLIMIT_DATA, &data) != 0) return -errno;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
    return install();
}
