import Glibc
import LinuxSystem
import MessageStore
import StoreFormat

/// Fills a store in a child process that is killed, then opens it: as it is, and then as Apache RocketMQ leaves its
/// stores when it is killed, without our recovery point.
func measureRecovery(gigabytes: Int) throws {
    removeFolder()
    let child = spawnFill(gigabytes)
    var status: Int32 = 0
    waitpid(child, &status, 0)
    try report("recovery after kill -9")
    // Apache writes queues and index in the order of the log, knows no recovery point, and its `abort` is empty.
    try disk.remove(folder + "/consumequeue/.apus-recovery")
    _ = try disk.open(folder + "/abort", .replace)
    try report("the same as Apache leaves it")
    let store = try openLarge()
    try store.close()
    let again = nanoseconds(CLOCK_MONOTONIC)
    let reopened = try openLarge()
    print("  opening after a clean stop: \((nanoseconds(CLOCK_MONOTONIC) - again) / 1_000_000) ms")
    try reopened.close()
    removeFolder()
}

private func openLarge() throws -> MessageStore {
    try open { $0.mappedFileSizeCommitLog = 1 << 30 }
}

/// Opens the store in a child process that says how long it took and is killed.
private func report(_ name: String) throws {
    print(name, terminator: ": ")
    fflush(nil)
    let child = spawn(["reopen", folder])
    var status: Int32 = 0
    waitpid(child, &status, 0)
}

func reopen() throws {
    let start = nanoseconds(CLOCK_MONOTONIC)
    let startCPU = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
    let store = try openLarge()
    let elapsed = nanoseconds(CLOCK_MONOTONIC) - start
    let cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - startCPU
    print(
        "\(store.writtenOffset.rawValue >> 20) MiB in \(store.consumeQueues.count) queues: \(elapsed / 1_000_000) ms, of it \(cpu / 1_000_000) ms CPU, RSS \(residentKiB() / 1024) MiB"
    )
    fflush(nil)
    // Until queues and index are written behind.
    for _ in 0..<30 {
        usleep(100_000)
        store.runMaintenance()
        loop.run()
    }
    kill(getpid(), SIGKILL)
}

/// Runs this program again to fill the folder; it kills itself at the end.
func spawnFill(_ gigabytes: Int) -> pid_t { spawn(["fill", folder, String(gigabytes)]) }

private func spawn(_ texts: [String]) -> pid_t {
    var child = pid_t()
    let words: [UnsafeMutablePointer<CChar>?] = ([arguments[0]] + texts).map { strdup($0) }
    var pointers: [UnsafeMutablePointer<CChar>?] = words + [nil]
    let result = posix_spawn(&child, arguments[0], nil, nil, &pointers, environ)
    for word in words { free(word) }
    guard result == 0 else { fatalError("posix_spawn failed: \(result)") }
    return child
}
