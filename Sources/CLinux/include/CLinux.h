// What Swift cannot spell, or must not do: work between fork and exec, ancillary socket data, memfd seals,
// carry-less multiplication, atomics on memory shared with other processes.
//
// Every function returns 0 or a non-negative result on success and -errno on failure, and never touches errno's value
// as its contract. No function here allocates memory, keeps state or takes a lock.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// ---------------------------------------------------------------- CRC32 (crc32.c)

// CRC-32 (IEEE 802.3, reflected; what zlib's crc32() and java.util.zip.CRC32 compute) of `length` bytes.
// RocketMQ stores `& 0x7fffffff` of it; that mask is the caller's.
uint32_t apus_crc32(const void *_Nullable bytes, size_t length);
// Goes on with `crc`, the result for the bytes before these (0 at the start).
uint32_t apus_crc32_continue(uint32_t crc, const void *_Nullable bytes, size_t length);
// The same by table only: for machines without PCLMUL and for the test that compares both.
uint32_t apus_crc32_portable(uint32_t crc, const void *_Nullable bytes, size_t length);

// ---------------------------------------------------------------- processes (spawn.c)

struct apus_descriptor_map {
    int source; // descriptor in this process
    int target; // its number in the child
};

struct apus_spawn_request {
    const char *_Nonnull path;
    char *_Nullable const *_Nonnull arguments;   // ends with NULL
    char *_Nullable const *_Nonnull environment; // ends with NULL
    const struct apus_descriptor_map *_Nonnull descriptors;
    size_t descriptor_count; // at most 64
    int parent_death_signal; // 0: none. Sent when the *thread* that called apus_spawn ends.
    bool own_process_group;  // so that a terminal's Ctrl-C reaches the caller only
    bool ignore_strays;      // apus_ignore_strays, from the first instruction on
};

// fork → exec, wholly in C: between the two only async-signal-safe calls are made. In the child exactly the mapped
// descriptors are open, at their target numbers; no signal is blocked, and all have their default action or are
// ignored (`ignore_strays`).
// Returns the child's pid and stores its pidfd (close-on-exec). When exec (or a step before it) fails the child is
// already reaped and its -errno is returned.
pid_t apus_spawn(const struct apus_spawn_request *_Nonnull request, int *_Nonnull pidfd);

// SIGKILL → "KILL"; NULL for numbers without a name.
const char *_Nullable apus_signal_name(int signal);

int apus_pidfd_open(pid_t pid);
int apus_pidfd_signal(int pidfd, int signal);

// Reaps the child of `pidfd` if it has ended. Returns 1 and fills in `status` (exit code, or signal with
// `signalled` set), 0 while it runs.
int apus_pidfd_reap(int pidfd, int *_Nonnull status, bool *_Nonnull signalled);

// ---------------------------------------------------------------- limits (limits.c)

// Of another process of this user: its soft and hard limit. A value above the hard limit becomes that.
int apus_limit_files(pid_t pid, uint64_t count);
int apus_limit_data(pid_t pid, uint64_t bytes); // private writable memory (RLIMIT_DATA)
uint64_t apus_data_limit(void);                 // of this process, 0: none
uint64_t apus_files_limit(void);
int apus_nice(pid_t pid, int nice);      // 0 to 19; of the process's first thread and all it starts from then on
int apus_io_level(pid_t pid, int level); // 0 (first) to 7 of the best-effort class; as apus_nice
bool apus_can_open_more(void);           // false when this process has as many descriptors as it may
// An extended attribute of a file: its length.
ssize_t apus_attribute(const char *_Nonnull path, const char *_Nonnull name, char *_Nonnull value, size_t capacity);

// ---------------------------------------------------------------- descriptors (descriptors.c)

// A sealed memfd of exactly `bytes` zero bytes: it can neither shrink nor grow, so no reader can ever get SIGBUS.
int apus_memfd(const char *_Nonnull name, size_t bytes);
// An empty memfd that grows as it is written to.
int apus_growing_memfd(const char *_Nonnull name);
// From now on the memfd neither changes its bytes nor its size.
int apus_seal(int fd);
// Whether `fd` is a memfd sealed like those of apus_memfd.
bool apus_is_sealed(int fd);
// Reopens a descriptor for reading only (a mapping of the result can never be writable).
int apus_reopen_read_only(int fd);

int apus_eventfd(void);
// Adds 1. A full counter (2^64 - 2 unread signals) wakes its reader all the same, so that is no failure.
int apus_eventfd_signal(int fd);
int apus_eventfd_take(int fd, uint64_t *_Nonnull count); // 0 when nothing was added

// The user of the process at the other end of a unix socket.
int64_t apus_peer_user(int socket);

// One sendmsg/recvmsg with descriptors attached (SCM_RIGHTS, at most APUS_DESCRIPTORS_MAX). Interrupted calls are
// repeated. Received descriptors are close-on-exec.
#define APUS_DESCRIPTORS_MAX 64
ssize_t apus_send_descriptors(int socket, const void *_Nonnull bytes, size_t length, const int *_Nullable descriptors,
                              size_t count, int flags);
// `count` is the room in `descriptors` before and the number received after. -EMSGSIZE: the message was cut off;
// -EMFILE: there are no free descriptors for those that came (then all of them are closed).
ssize_t apus_receive_descriptors(int socket, void *_Nonnull bytes, size_t capacity, int *_Nonnull descriptors,
                                 size_t *_Nonnull count, int flags);

// signalfd for the given signals, which get blocked in the calling thread (call before any thread is started).
int apus_signalfd(const int *_Nonnull signals, size_t count);
int apus_signalfd_take(int fd); // the next waiting signal, 0 when there is none
// Ignores SIGPIPE, SIGHUP, SIGUSR1, timers, realtime signals and their like: all that would end a process by accident.
// Blocked signals that a signalfd takes come all the same. Async-signal-safe.
void apus_ignore_strays(void);

// open(2) and fcntl(2) are variadic, which Swift cannot call.
int apus_open(const char *_Nonnull path, int flags, mode_t mode);
int apus_accept(int listener); // non-blocking, close-on-exec
int apus_set_nonblocking(int fd, bool on);
int apus_is_writable(int fd); // 1: opened for writing, 0: read-only

// ---------------------------------------------------------------- memory shared between processes

static inline uint64_t apus_load_acquire(const void *_Nonnull at) {
    return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
}
static inline void apus_store_release(void *_Nonnull at, uint64_t value) {
    __atomic_store_n((uint64_t *)at, value, __ATOMIC_RELEASE);
}
// Between a store of this process and its next load of another's slot. Of two processes that each store and then look,
// at least one sees the other's store.
static inline void apus_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// ---------------------------------------------------------------- files (files.c)

// Reserves blocks of a file without changing its size.
int apus_allocate(int descriptor, int64_t offset, int64_t length);
// Starts writing dirty pages of a range back without waiting.
int apus_start_writeback(int descriptor, int64_t offset, int64_t length);
// Synchronizes the whole file system the descriptor lies on.
int apus_sync_filesystem(int descriptor);
// Exclusive lock on byte 0 that belongs to the open file description. It conflicts with the POSIX locks of other
// processes (Java's FileChannel.tryLock) and with a second opener in this process. -EAGAIN when another one holds it.
int apus_try_lock(int descriptor);
// The process that holds a lock on byte 0 against that one; the descriptor needs no write access. 0: none. -1: the lock
// belongs to an open file description (as ours does), and the kernel does not report of which process.
// Below -1: -errno - 1.
int apus_lock_holder(int descriptor);
// O_DIRECT, which is another number on every architecture.
int apus_direct_flag(void);
// Of the calling thread, at most 15 bytes.
void apus_set_thread_name(const char *_Nonnull name);

// ---------------------------------------------------------------- readiness (readiness.c)

#define APUS_READABLE 1u
#define APUS_WRITABLE 2u
#define APUS_FAILED 4u

struct apus_readiness {
    uint32_t events; // APUS_READABLE | APUS_WRITABLE | APUS_FAILED
    uint32_t tag;    // the caller's number of the descriptor
};

int apus_epoll(void);
// Adds (or with `change` changes) a level-triggered watch for readability and, if asked for, writability.
int apus_epoll_watch(int epoll, int fd, uint32_t tag, bool writes, bool change);
// Waits at most `nanoseconds`. Returns how many entries of `ready` (at most 256) were filled; 0 also when interrupted.
int apus_epoll_wait(int epoll, struct apus_readiness *_Nonnull ready, int capacity, uint64_t nanoseconds);

// The first occurrence of `needle` in `haystack`, or NULL.
const void *_Nullable apus_find(const void *_Nonnull haystack, size_t length, const void *_Nonnull needle,
                                size_t needle_length);

// An inotify descriptor (close-on-exec, non-blocking) that becomes readable when files of the folder were written and
// closed, moved in or out, or removed.
int apus_watch_folder(const char *_Nonnull path);

// ---------------------------------------------------------------- memory (memory.c)

// Takes the pages of all code out of this process's resident memory. What is still needed comes back from the page
// cache by itself. For after a start that ran much code once.
void apus_drop_code_pages(void);

// Asks the processor to bring a line of memory into its cache; harmless for any address.
static inline void apus_prefetch(const void *_Nonnull address) { __builtin_prefetch(address, 0, 2); }

// ---------------------------------------------------------------- sandbox (sandbox.c)

// For a process that runs foreign code. From then on, for all of its threads and for ever: no new privileges, no new
// socket, no new process or program. No file is opened for writing, created or removed. No signal goes to others, and
// no limit is raised. What is open stays usable. Forbidden calls fail with EPERM or EACCES.
// memory: bytes of private writable memory, stacks included (RLIMIT_DATA); 0: as it is.
int apus_sandbox_enter(uint64_t memory);
// Which version of Landlock the kernel has; 0: none.
int apus_landlock_version(void);
// The calling thread and the threads it starts from then on open nothing but what lies below the `count` paths (files
// or folders), for reading. Paths that do not exist are skipped. TCP, abstract sockets and signals to others are
// forbidden, too, where the kernel can. What is open stays usable. Returns the kernel's version of Landlock; 0: it has
// none, and nothing changed.
int apus_landlock_restrict(const char *_Nonnull const *_Nonnull paths, size_t count);

// ---------------------------------------------------------------- guard (guard.c)

#define APUS_GUARD_TIMEOUT 1000u
#define APUS_GUARD_EXIT 1001u
#define APUS_GUARD_MEMORY 1002u

// Prepares the calling thread, and the process's handlers, to die with a known cause. A crash (SIGSEGV, SIGBUS, SIGILL,
// SIGTRAP, SIGFPE, SIGABRT, SIGSYS) stores the signal's number in `place[1]`. While `place[0]` is not 0, a budget that
// ran out stores APUS_GUARD_TIMEOUT there, and exit() stores APUS_GUARD_EXIT. Then the process ends by the signal, by
// SIGKILL, or as exit() does. `place` is mapped for as long as the process lives.
int apus_guard_install(uint64_t *_Nonnull place);
// The budget of one call, which begins `now` (nanoseconds of the monotonic clock, not 0). It is over when so much time
// has passed, a good third of it at least on a processor. In any case it is over after four times as long. So a machine
// that stood still is not counted against the call. The timer's signal, SIGXCPU, comes now and then when nothing is
// wrong, at most once in the time of a budget.
void apus_guard_begin(uint64_t now, uint32_t milliseconds);
// The call has ended.
void apus_guard_end(void);
// Stores `cause` in `place[1]` and ends the process by SIGKILL.
_Noreturn void apus_guard_die(uint64_t cause);
