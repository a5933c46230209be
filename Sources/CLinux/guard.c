#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// The one state in this target: handlers take no argument of ours.
static uint64_t *guarded;
static timer_t budget;
static bool has_budget;
static uint32_t budget_milliseconds;
// Nanoseconds of the monotonic clock; 0: no call is going on.
static uint64_t call_began;
static uint64_t timer_began;
static uint64_t processor_at_start;
static int extensions;

static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT, SIGSYS};

// Async-signal-safe, all of it: a store, sigaction, raise.
static void crashed(int signal) {
    if (guarded) __atomic_store_n(&guarded[1], (uint64_t)signal, __ATOMIC_RELEASE);
    struct sigaction plain;
    memset(&plain, 0, sizeof plain);
    plain.sa_handler = SIG_DFL;
    sigaction(signal, &plain, NULL);
    raise(signal);
}

static uint64_t processor_time(void) {
    struct timespec time = {0, 0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void start_timer(uint64_t nanoseconds) {
    const struct itimerspec span = {
        .it_value = {.tv_sec = (time_t)(nanoseconds / 1000000000u), .tv_nsec = (long)(nanoseconds % 1000000000u)}};
    timer_settime(budget, 0, &span, NULL);
}

static void ran_out(int signal) {
    (void)signal;
    const uint64_t began = __atomic_load_n(&call_began, __ATOMIC_RELAXED);
    if (!guarded || began == 0 || __atomic_load_n(&guarded[0], __ATOMIC_RELAXED) == 0) return;
    const uint64_t limit = budget_milliseconds * 1000000ull;
    struct timespec time = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &time);
    const uint64_t elapsed = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec - began;
    // The timer was started for a call before this one.
    if (elapsed < limit) return start_timer(limit - elapsed);
    // A machine that is overloaded or was suspended is not the call's fault; a call that only sleeps is, soon.
    if (extensions < 3 && processor_time() - processor_at_start < budget_milliseconds * 500000ull) {
        extensions++;
        start_timer(limit);
        return;
    }
    apus_guard_die(APUS_GUARD_TIMEOUT);
}

static void exited(void) {
    if (guarded && __atomic_load_n(&guarded[0], __ATOMIC_RELAXED) != 0)
        __atomic_store_n(&guarded[1], (uint64_t)APUS_GUARD_EXIT, __ATOMIC_RELEASE);
}

void apus_guard_die(uint64_t cause) {
    if (guarded) __atomic_store_n(&guarded[1], cause, __ATOMIC_RELEASE);
    for (;;) kill(getpid(), SIGKILL);
}

int apus_guard_install(uint64_t *place) {
    guarded = place;
    // A stack that overflowed cannot carry the handler that reports it.
    stack_t stack;
    memset(&stack, 0, sizeof stack);
    stack.ss_size = 64 * 1024;
    stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) != 0) return -errno;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = SA_ONSTACK;
    action.sa_handler = crashed;
    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
        if (sigaction(crashes[i], &action, NULL) != 0) return -errno;
    action.sa_handler = ran_out;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    if (sigaction(SIGXCPU, &action, NULL) != 0) return -errno;
    if (atexit(exited) != 0) return -ENOMEM;
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGXCPU;
    if (timer_create(CLOCK_MONOTONIC, &event, &budget) != 0) return -errno;
    has_budget = true;
    return 0;
}

void apus_guard_begin(uint64_t now, uint32_t milliseconds) {
    if (!has_budget) return;
    __atomic_store_n(&call_began, now, __ATOMIC_RELEASE);
    // Starting a timer costs more than many a call. One that has run for an eighth of its time at most serves this
    // call, too.
    if (milliseconds == budget_milliseconds && now - timer_began < milliseconds * 125000ull) return;
    budget_milliseconds = milliseconds;
    extensions = 0;
    processor_at_start = processor_time();
    timer_began = now;
    start_timer(milliseconds * 1000000ull);
}

void apus_guard_end(void) { __atomic_store_n(&call_began, 0, __ATOMIC_RELEASE); }
