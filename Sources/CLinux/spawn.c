#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum { descriptors_max = 64 };

// Closes everything from `first` on. close_range(2) is Linux 5.9; older kernels answer ENOSYS.
static void close_from(unsigned first) {
    if (syscall(SYS_close_range, first, ~0u, 0) == 0) return;
    for (int fd = (int)first; fd < 65536; fd++) close(fd);
}

// In the child. Only async-signal-safe calls. Reports errno through `report` and ends.
static _Noreturn void become(const struct apus_spawn_request *request, int report, pid_t parent) {
    int moved[descriptors_max + 1], highest = -1;
    for (int s = 1; s < 65; s++) signal(s, SIG_DFL);
    if (request->ignore_strays) apus_ignore_strays();

    // First out of the way of every target number, then each to its place: so no order of numbers can clash.
    for (size_t i = 0; i < request->descriptor_count; i++)
        if (request->descriptors[i].target > highest) highest = request->descriptors[i].target;
    for (size_t i = 0; i < request->descriptor_count; i++)
        if ((moved[i] = fcntl(request->descriptors[i].source, F_DUPFD_CLOEXEC, highest + 1)) < 0) goto failed;
    if ((report = fcntl(report, F_DUPFD_CLOEXEC, highest + 1)) < 0) _exit(127);
    for (int fd = 0; fd <= highest; fd++) close(fd);
    for (size_t i = 0; i < request->descriptor_count; i++)
        if (dup2(moved[i], request->descriptors[i].target) < 0) goto failed;
    // What is above the targets is close-on-exec only where we made it so; `report` must live until exec.
    if (dup2(report, highest + 1) < 0) goto failed;
    report = highest + 1;
    if (fcntl(report, F_SETFD, FD_CLOEXEC) < 0) goto failed;
    close_from((unsigned)report + 1);

    if (request->own_process_group && setpgid(0, 0) < 0) goto failed;
    if (request->parent_death_signal) {
        if (prctl(PR_SET_PDEATHSIG, request->parent_death_signal) < 0) goto failed;
        if (getppid() != parent) _exit(127); // it ended before the line above
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(request->path, request->arguments, request->environment);
failed:;
    int error = errno;
    ssize_t ignored = write(report, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

pid_t apus_spawn(const struct apus_spawn_request *request, int *pidfd) {
    int report[2];
    if (request->descriptor_count > descriptors_max) return -EINVAL;
    if (pipe2(report, O_CLOEXEC) < 0) return -errno;

    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // no handler of ours may run in the child
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(request, report[1], parent);
    int error = pid < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);

    if (!error) {
        ssize_t got; // nothing: the pipe was closed by a successful exec
        while ((got = read(report[0], &error, sizeof error)) < 0 && errno == EINTR) {}
        if (got != sizeof error) error = 0;
        // The pid cannot be another process': the child is not reaped yet.
        if (!error && (*pidfd = apus_pidfd_open(pid)) < 0) {
            error = -*pidfd;
            kill(pid, SIGKILL);
        }
        if (error) while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
    }
    close(report[0]);
    return error ? -error : pid;
}

const char *apus_signal_name(int signal) { return sigabbrev_np(signal); }

int apus_pidfd_open(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int apus_pidfd_signal(int pidfd, int signal) {
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

int apus_pidfd_reap(int pidfd, int *status, bool *signalled) {
    siginfo_t info;
    info.si_pid = 0;
    while (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0)
        if (errno != EINTR) return -errno;
    if (info.si_pid == 0) return 0;
    *status = info.si_status;
    *signalled = info.si_code != CLD_EXITED;
    return 1;
}
