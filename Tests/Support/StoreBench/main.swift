import Glibc
import LinuxSystem
import Logging
import MessageModel
import MessageStore
import StoreFormat

// Measures the store alone, one thread, no network: what a message costs in append, dispatch and reading; recovery
// time; memory. Beside each number stands the floor the same machine gives at the same moment: a bare pwrite, a bare
// fdatasync.
//
//     StoreBench append [FOLDER]                            ns a message, 128 B and 1 KB, and reading back
//     StoreBench latency [FOLDER [SECONDS [async|sync]]]    20 000 messages a second for 60 s unless said otherwise
//     StoreBench recover [FOLDER [GIGABYTES]]               time to serve after kill -9, of a store of ours and of one left as Apache leaves it
//     StoreBench queues [FOLDER [COUNT]]                    RSS, stalls and opening with 10 000 and 100 000 queues

func nanoseconds(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

func residentKiB() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var text = [CChar](repeating: 0, count: 128)
    fgets(&text, 127, file)
    let fields = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(
        separator: " ")
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4 : 0
}

func fixed(_ value: Double, _ digits: Int = 1) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let scaled = Int((value * scale).rounded())
    if digits == 0 { return String(scaled) }
    let fraction = String(scaled % Int(scale))
    return "\(scaled / Int(scale))." + String(repeating: "0", count: digits - fraction.utf8.count) + fraction
}

final class Loop: @unchecked Sendable {
    private var mutex = pthread_mutex_t()
    private var work: [@Sendable () -> Void] = []

    func post(_ item: @escaping @Sendable () -> Void) {
        pthread_mutex_lock(&mutex)
        work.append(item)
        pthread_mutex_unlock(&mutex)
    }

    func run() {
        pthread_mutex_lock(&mutex)
        let items = work
        work.removeAll(keepingCapacity: true)
        pthread_mutex_unlock(&mutex)
        for item in items { item() }
    }
}

let arguments = CommandLine.arguments
let what = arguments.count > 1 ? arguments[1] : "append"
let folder = arguments.count > 2 ? arguments[2] : "/tmp/apus-store-bench-\(getpid())"
let disk = RealDisk()
let loop = Loop()

func open(
    _ events: StoreEvents = .ignored, _ configure: (inout StoreConfiguration) -> Void = { _ in }
) throws -> MessageStore {
    var configuration = StoreConfiguration(storePathRootDir: folder)
    configuration.diskSpaceWarningLevelRatio = 1
    configuration.diskSpaceCleanForciblyRatio = 1
    configuration.diskMaxUsedSpaceRatio = 100
    configure(&configuration)
    let store = MessageStore(
        configuration: configuration, disk: disk, logger: Logger(label: "store") { _ in SwiftLogNoOpLogHandler() },
        executor: { loop.post($0) })
    try store.open(events)
    return store
}

func removeFolder() {
    _ = system("rm -rf '\(folder)'")
}

struct Message {
    let topic: [UInt8]
    let body: [UInt8]
    var properties: [UInt8]

    init(topic: String, bytes: Int) {
        self.topic = Array(topic.utf8)
        body = Array(repeating: 120, count: bytes)
        properties = Array("UNIQ_KEY\u{1}7F0000010000000000000000\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA".utf8)
    }

    /// As clients do: another unique key for each message.
    mutating func number(_ value: Int) {
        var rest = value
        for place in 0..<8 {
            properties[32 - place] = UInt8(48 + rest % 10)
            rest /= 10
        }
    }

    func append(to store: MessageStore, queueID: Int32) -> AppendOutcome {
        topic.withUnsafeBytes { topic in
            body.withUnsafeBytes { body in
                properties.withUnsafeBytes { properties in
                    var draft = MessageDraft(
                        topic: topic, queueID: queueID, bornHost: HostAddress(ipv4: 1, port: 2),
                        storeHost: HostAddress(ipv4: 3, port: 4), body: body)
                    draft.properties = properties
                    return store.append(draft)
                }
            }
        }
    }
}

func measureAppend() throws {
    for (indexed, checksums, recordSums) in [
        (true, false, true), (true, false, false), (false, false, true), (true, true, true),
    ] {
        let what =
            "index \(indexed ? "on" : "off"), record checksums \(recordSums ? "on" : "off")\(checksums ? ", enabledAppendPropCRC" : "")"
        for bytes in [128, 1024] {
            for perTick in [1, 16, 64] {
                removeFolder()
                let settings: (inout StoreConfiguration) -> Void = {
                    $0.messageIndexEnable = indexed
                    $0.enabledAppendPropCRC = checksums
                    $0.recordSumEnable = recordSums
                }
                let store = try open(.ignored, settings)
                var message = Message(topic: "BenchTopic", bytes: bytes)
                let count = 400_000
                var lastMaintenance = nanoseconds(CLOCK_MONOTONIC)
                var worstTick: Int64 = 0
                let startOfAll = nanoseconds(CLOCK_PROCESS_CPUTIME_ID)
                let start = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
                for number in 0..<count {
                    message.number(number)
                    guard case .appended = message.append(to: store, queueID: Int32(number & 7)) else {
                        fatalError("refused")
                    }
                    if number % perTick == perTick - 1 {
                        let before = nanoseconds(CLOCK_MONOTONIC)
                        try store.commitTick()
                        let now = nanoseconds(CLOCK_MONOTONIC)
                        worstTick = max(worstTick, now - before)
                        if now - lastMaintenance > 100_000_000 {
                            lastMaintenance = now
                            store.runMaintenance()
                            loop.run()
                        }
                    }
                }
                let cpu = Double(nanoseconds(CLOCK_THREAD_CPUTIME_ID) - start) / Double(count)
                let all = Double(nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - startOfAll) / Double(count)
                // The floor: the same bytes by bare pwrite.
                let size = bytes + 91 + 10 + message.properties.count + (checksums ? PropCRC.size + 1 : 0)
                let floorCPU = try floor(bytes: size * perTick, times: count / perTick) / Double(perTick)
                print(
                    "append \(bytes) B, \(perTick) per tick, \(what): \(fixed(cpu, 0)) ns/message CPU (bare pwrite \(fixed(floorCPU, 0))), \(fixed(all, 0)) with the threads behind it, worst tick \(worstTick / 1000) us, RSS \(residentKiB() / 1024) MiB"
                )
                if perTick == 64 { measureReads(store, count / 8, "read back") }
                try store.close()
                guard perTick == 64 else { continue }
                let found = try open(.ignored, settings)
                measureReads(found, count / 8, "read after a start")
                try found.close()
            }
        }
    }
    removeFolder()
}

func floor(bytes: Int, times: Int) throws -> Double {
    let file = try disk.open(folder + "/floor", .replace)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 16)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 1)
    try file.truncate(to: 1 << 30)
    _ = try file.allocate(from: 0, length: 1 << 29)
    let start = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
    for number in 0..<times {
        try file.write(UnsafeRawBufferPointer(buffer), at: Int64(number * bytes))
    }
    let cpu = Double(nanoseconds(CLOCK_THREAD_CPUTIME_ID) - start) / Double(times)
    try disk.remove(folder + "/floor")
    return cpu
}

func measureReads(_ store: MessageStore, _ perQueue: Int, _ what: String) {
    let topic = Array("BenchTopic".utf8)
    for maximum in [1, 32] {
        var offset = QueueOffset(0)
        var messages = 0
        var sum = 0
        let start = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
        while offset.rawValue < Int64(perQueue) {
            let result = topic.withUnsafeBytes { topic in
                store.getMessages(topic: topic, queueID: 3, from: offset, maxCount: maximum) { bytes in
                    sum &+= bytes.count &+ Int(bytes[bytes.count - 1])
                }
            }
            if result.messageCount == 0 { break }
            messages += result.messageCount
            offset = result.nextBeginOffset
        }
        let cpu = Double(nanoseconds(CLOCK_THREAD_CPUTIME_ID) - start) / Double(max(1, messages))
        print("  \(what), \(maximum) per pull: \(fixed(cpu, 0)) ns/message CPU, \(messages) messages (\(sum & 1))")
    }
}

func fill(gigabytes: Int) throws {
    let store = try open { $0.mappedFileSizeCommitLog = 1 << 30 }
    var message = Message(topic: "BenchTopic", bytes: 1024)
    var number = 0
    var lastMaintenance = nanoseconds(CLOCK_MONOTONIC)
    while store.writtenOffset.rawValue < Int64(gigabytes) << 30 {
        for _ in 0..<64 {
            message.number(number)
            _ = message.append(to: store, queueID: Int32(number & 7))
            number += 1
        }
        try store.commitTick()
        // As an event loop would: what other threads have done is taken over at once.
        loop.run()
        let now = nanoseconds(CLOCK_MONOTONIC)
        if now - lastMaintenance > 100_000_000 {
            lastMaintenance = now
            store.runMaintenance()
        }
    }
    kill(getpid(), SIGKILL)
}

func measureQueues(_ counts: [Int]) throws {
    for count in counts {
        removeFolder()
        let store = try open { $0.messageIndexEnable = false }
        let before = residentKiB()
        let perTopic = 10
        for topic in 0..<(count / perTopic) {
            let message = Message(topic: "BenchTopic\(topic)", bytes: 16)
            for queue in 0..<perTopic { _ = message.append(to: store, queueID: Int32(queue)) }
            if topic % 10 == 9 { try store.commitTick() }
        }
        try store.commitTick()
        let live = residentKiB()
        var worst: Int64 = 0
        for _ in 0..<300 {
            for _ in 0..<20 {
                usleep(1000)
                loop.run()
            }
            let start = nanoseconds(CLOCK_MONOTONIC)
            store.runMaintenance()
            worst = max(worst, nanoseconds(CLOCK_MONOTONIC) - start)
            loop.run()
        }
        print(
            "\(count) queues: RSS \(before / 1024) MiB before, \(live / 1024) MiB with a message in each, \(residentKiB() / 1024) MiB written behind; worst maintenance call \(worst / 1000) us"
        )
        let closing = nanoseconds(CLOCK_MONOTONIC)
        try store.close()
        let start = nanoseconds(CLOCK_MONOTONIC)
        let startCPU = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
        let again = try open { $0.messageIndexEnable = false }
        let opened = nanoseconds(CLOCK_MONOTONIC)
        let openedCPU = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
        print(
            "  closing \((start - closing) / 1_000_000) ms, opening \((opened - start) / 1_000_000) ms, of it \((openedCPU - startCPU) / 1_000_000) ms CPU, \(again.consumeQueues.count) queues"
        )
        try again.close()
    }
    removeFolder()
}

/// Writes numbered messages until it is killed; says on standard output how many are acknowledged. Message `k` goes to
/// queue `k % 4`. In the tick that sends message `k`, and before it, message `k - 40` is edited if it can be divided by
/// 3, and deleted if it can be by 15.
func victim() throws {
    let store = try open { configuration in
        configuration.mappedFileSizeCommitLog = 256 * 1024
        configuration.mappedFileSizeConsumeQueue = 2000
        configuration.maxHashSlotNum = 500
        configuration.maxIndexNum = 2000
        configuration.allocateAheadBytes = 64 * 1024
        configuration.flushIntervalConsumeQueue = 10
        configuration.flushConsumeQueueThoroughInterval = 50
        configuration.flushIntervalCommitLog = 20
    }
    var number = store.consumeQueues.reduce(0) { $0 + Int($1.maxOffset.rawValue) }
    while true {
        let count = 1 + number % 19
        for edited in max(0, number - 40)..<max(0, number + count - 40) where edited % 3 == 0 {
            replace(edited, in: store)
        }
        for _ in 0..<count {
            var message = Message(topic: "Victim", bytes: 0)
            message.number(number)
            let body = Array("\(number) ".utf8) + Array(repeating: 118, count: number * 7 % 900)
            let outcome = message.topic.withUnsafeBytes { topic in
                body.withUnsafeBytes { body in
                    message.properties.withUnsafeBytes { properties in
                        var draft = MessageDraft(
                            topic: topic, queueID: Int32(number % 4), bornHost: HostAddress(ipv4: 1, port: 2),
                            storeHost: HostAddress(ipv4: 3, port: 4), body: body)
                        draft.properties = properties
                        return store.append(draft)
                    }
                }
            }
            guard case .appended = outcome else { fatalError("\(outcome)") }
            number += 1
        }
        try store.commitTick()
        let line = Array("\(number)\n".utf8)
        guard write(1, line, line.count) == line.count else { exit(1) }
        store.runMaintenance()
        loop.run()
    }
}

/// After a restart the message may have been edited or deleted already.
func replace(_ number: Int, in store: MessageStore) {
    let deletes = number % 15 == 0
    let offset = QueueOffset(Int64(number / 4))
    guard let queue = store.consumeQueue(topic: "Victim", queueID: Int32(number % 4)),
        let version = store.currentVersion(queue, at: offset), !version.isDeleted
    else { return }
    let note = EditNote(version: 2, deletes: deletes, action: deletes ? .delete : .edit, at: 1, by: "victim")
    let outcome = Array("Victim".utf8).withUnsafeBytes { topic in
        Array((deletes ? "" : "\(number) edited").utf8).withUnsafeBytes { body in
            Array("APUS_EDIT\u{1}\(note.text)\u{2}".utf8).withUnsafeBytes { properties in
                var draft = MessageDraft(
                    topic: topic, queueID: Int32(number % 4), bornHost: HostAddress(ipv4: 1, port: 2),
                    storeHost: HostAddress(ipv4: 3, port: 4), body: body)
                draft.properties = properties
                return store.replace(draft, at: offset, replacing: version.physicalOffset, deletes: deletes)
            }
        }
    }
    guard case .appended = outcome else { fatalError("\(outcome)") }
}

switch what {
case "victim": try victim()
case "append": try measureAppend()
case "latency":
    let seconds = arguments.count > 3 ? Int(arguments[3]) ?? 60 : 60
    let modes = arguments.count > 4 ? [arguments[4]] : ["async", "sync"]
    for mode in modes { try measureLatency(seconds: seconds, sync: mode == "sync") }
case "recover": try measureRecovery(gigabytes: arguments.count > 3 ? Int(arguments[3]) ?? 1 : 1)
case "queues": try measureQueues(arguments.count > 3 ? [Int(arguments[3]) ?? 10_000] : [10_000, 100_000])
case "reopen": try reopen()
case "fill": try fill(gigabytes: arguments.count > 3 ? Int(arguments[3]) ?? 1 : 1)
default: print("StoreBench append|latency|recover|queues [FOLDER [NUMBER [async|sync]]]")
}
