// Nanoseconds, and where `Tests/Scripts/codec-benchmark` preloads its counter also allocations, per frame decoded and
// per response encoded. Prints one line each; ends with 1 when a decode or a hot encode allocates.

import Glibc
import MessageModel
import NIOCore
import RemotingProtocol

/// The preloaded library's count of allocations so far; nil without it.
let allocations: (@convention(c) () -> UInt64)? = {
    guard let symbol = dlsym(nil, "apus_allocation_count") else { return nil }
    return unsafeBitCast(symbol, to: (@convention(c) () -> UInt64).self)
}()

/// Keeps the optimizer from dropping what is measured.
nonisolated(unsafe) var sink: Int64 = 0
nonisolated(unsafe) var allocated = false

func measure(_ name: String, mustNotAllocate: Bool = true, _ body: () throws -> Int64) rethrows {
    for _ in 0..<10_000 { sink &+= try body() }
    var best = Double.infinity
    var perOperation = 0.0
    for _ in 0..<7 {
        let count = 200_000
        let before = allocations?() ?? 0
        var start = timespec()
        var end = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start)
        for _ in 0..<count { sink &+= try body() }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end)
        let nanoseconds = Double(end.tv_sec - start.tv_sec) * 1e9 + Double(end.tv_nsec - start.tv_nsec)
        best = min(best, nanoseconds / Double(count))
        perOperation = Double((allocations?() ?? 0) - before) / Double(count)
    }
    let rounded = (best * 10).rounded() / 10
    print("\(name): \(rounded) ns" + (allocations == nil ? "" : ", \(perOperation) allocations"))
    if mustNotAllocate, perOperation >= 0.001 { allocated = true }
}

func encoded(_ command: RemotingCommand, _ serialization: HeaderSerialization) -> [UInt8] {
    var buffer = ByteBuffer()
    command.encode(into: &buffer, serialization: serialization)
    return Array(buffer: buffer)
}

// A header of 283 bytes in JSON, as in the design's measurement.
let properties = "KEYS\u{1}key0\u{2}UNIQ_KEY\u{1}FD0000000000000000000000000000021EC2\u{2}WAIT\u{1}true"
let send = RemotingCommand(
    code: RequestCode.sendMessageV2.rawValue, language: .java, opaque: 17,
    extFields: [
        "a": "G", "b": "BenchTopic", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1795246557626", "h": "0",
        "i": properties, "j": "0", "k": "false", "m": "false",
    ], body: [UInt8](repeating: 1, count: 128))
let pull = RemotingCommand(
    code: RequestCode.pullMessage.rawValue, language: .java, opaque: 18,
    extFields: [
        "consumerGroup": "G", "topic": "BenchTopic", "queueId": "0", "queueOffset": "12345", "maxMsgNums": "32",
        "sysFlag": "2", "commitOffset": "0", "suspendTimeoutMillis": "15000", "subVersion": "1795246557957",
        "expressionType": "TAG", "bname": "broker-a",
    ])

let scratch = HeaderScratch()
for (name, serialization) in [("JSON", HeaderSerialization.json), ("ROCKETMQ", .rocketMQ)] {
    let sendBytes = encoded(send, serialization)
    let pullBytes = encoded(pull, serialization)
    try sendBytes.withUnsafeBytes { bytes in
        let header = try RemotingFrame.parse(bytes, scratch: scratch).header.count
        try measure("decode send, \(name) header of \(header) bytes") {
            let frame = try RemotingFrame.parse(bytes, scratch: scratch)
            let header = try SendMessageRequestHeader(frame)
            return header.bornTimestamp &+ Int64(header.properties.count) &+ Int64(frame.body.count)
        }
    }
    try pullBytes.withUnsafeBytes { bytes in
        let header = try RemotingFrame.parse(bytes, scratch: scratch).header.count
        try measure("decode pull, \(name) header of \(header) bytes") {
            let frame = try RemotingFrame.parse(bytes, scratch: scratch)
            let header = try PullMessageRequestHeader(frame)
            return header.queueOffset &+ Int64(header.topic.count)
        }
    }
    var buffer = ByteBufferAllocator().buffer(capacity: 65_536)
    let address = ReturnAddress(opaque: 17, serialization: serialization, isOneway: false)
    let host = HostAddress(ipv4: 0x7f00_0001, port: 10911)
    measure("encode send response, \(name)") {
        buffer.clear()
        ResponseEncoder.encodeSendResponse(
            into: &buffer, address, storeHost: host, physicalOffset: 123_456_789, queueID: 3, queueOffset: 98_765)
        return Int64(buffer.readableBytes)
    }
    measure("encode pull response header, \(name)") {
        buffer.clear()
        let frame = ResponseEncoder.beginPullResponse(
            into: &buffer, address, .success, remark: "FOUND", nextBeginOffset: 32, minOffset: 0, maxOffset: 1000,
            suggestWhichBrokerID: 0)
        ResponseEncoder.finish(frame, in: &buffer)
        return Int64(buffer.readableBytes)
    }
    measure("encode any response with 2 fields, \(name)", mustNotAllocate: false) {
        buffer.clear()
        ResponseEncoder.encode(into: &buffer, address, .success, fields: [("offset", "1"), ("other", "2")])
        return Int64(buffer.readableBytes)
    }
}
if allocated {
    print("a hot path allocates")
    exit(1)
}
