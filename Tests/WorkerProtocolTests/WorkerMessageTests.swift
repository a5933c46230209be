import TestTools
import Testing
import WorkerProtocol

@Suite struct WorkerMessageTests {
    /// One of every case, with the values that are easy to get wrong: empty, negative, extreme, not ASCII.
    static let samples: [WorkerMessage] = [
        .setup(
            kind: .brokerStore, index: 3, settings: Settings(["brokerName": "broker-a", "leer": "", "ü": "日本"]),
            descriptors: ["listener:remoting", "segment:watermarks"]),
        .setup(kind: .nameserver, index: 0, settings: Settings(), descriptors: []),
        .peer(kind: .filter, index: 63), .setupDone, .ping(0), .ping(.max), .drain(.restart), .drain(.leave),
        .drain(.stop),
        .renew(reason: "libA.so was replaced"), .explained(cause: "it crashed"), .report(json: "{}"),
        .pardon(name: "libA.so"), .filterServes(rank: 2, types: ["RANGE", "é"]),
        .filterCompiled(request: 5, result: .elsewhere(types: ["RANGE"], reason: "none")),
        .reload(settings: Settings(["a": "b"])), .ready(detail: "127.0.0.1:9876"), .pong(7, status: "", trouble: ""),
        .pong(.max, status: "12 connections", trouble: "takes no messages: disk full"),
        .failed(reason: "Platte voll", cause: .disk), .drained,
        .extend(descriptors: ["segment:watermarks#3"]),
        .topicCreated(
            AutoCreatedTopic(
                name: "Neu", readQueues: 4, writeQueues: 8, permission: 6, sysFlag: 1, filterType: "SINGLE_TAG")),

        .filterCompile(request: 1, type: "SQL92", expression: "a > 1"), .filterRelease(program: .max),
        .filterBatch(request: 2, program: 3, entries: (0..<40).map { $0 * 6 }),
        .filterBatch(request: 2, program: 3, entries: []),
        .filterCompiled(request: 1, result: .tagsCodes([1, -1, .min])),
        .filterCompiled(request: 1, result: .program(9)),
        .filterCompiled(request: 1, result: .program(9, prefilter: [])),
        .filterCompiled(request: 1, result: .program(.max, prefilter: [.min, 0, .max])),
        .filterCompiled(request: 1, result: .refused(position: -1, reason: "syntax")),
        .filterCompiled(request: 1, result: .unavailable(reason: "no plug-in")),
        .filterMatched(request: 2, bitmap: [0xff, 0x01]), .filterMatched(request: 2, bitmap: []),
        .replicaBytes(at: 1 << 40, bytes: [1, 2, 3]), .replicaBytes(at: 0, bytes: []),
        .replicaMetadata(kind: .delayOffset, json: Array("{}".utf8)),
        .replicaState(connected: true, master: "10.0.0.1:10912"), .replicaState(connected: false, master: ""),
        .replicaPosition(next: -1), .replicaRefused(at: 5, reason: "gap"),
        .brokerRole(.slave, masterAddress: "h:1"), .slavesWanted(request: .max), .slaves(request: 7, []),
        .claimsWanted(request: 1, question: [1, 2]), .claims(request: 1, .answered([3, 4, 5])),
        .claims(request: 2, .unknown), .claims(request: .max, .failed(reason: "away")),
        .slaves(
            request: 8,
            [SlaveReport(address: "10.0.0.2:4711", acknowledged: -1, next: .max, bytesPerSecond: 1 << 33)]),
    ]

    @Test(arguments: samples) func comesBackTheSame(_ message: WorkerMessage) throws {
        #expect(try WorkerMessage(decoding: message.encoded()) == message)
        let frame = message.encodedFrame()
        #expect(frame[..<4].reduce(0) { $0 << 8 | Int($1) } == frame.count - 4)
        #expect(Array(frame.dropFirst(4)) == message.encoded())
    }

    @Test(arguments: samples) func everyShorterMessageIsRefused(_ message: WorkerMessage) {
        let bytes = message.encoded()
        for length in 0..<bytes.count {
            #expect(throws: WorkerMessageError.self) { try WorkerMessage(decoding: Array(bytes[..<length])) }
        }
        #expect(throws: WorkerMessageError.trailingBytes(1)) { try WorkerMessage(decoding: bytes + [0]) }
    }

    @Test func anotherVersionIsRefusedInWords() {
        var bytes = WorkerMessage.setupDone.encoded()
        bytes[0] = 9
        #expect(throws: WorkerMessageError.unknownVersion(9)) { try WorkerMessage(decoding: bytes) }
        #expect("\(WorkerMessageError.unknownVersion(9))".contains("different builds"))
        #expect(throws: WorkerMessageError.unknownMessage(250)) {
            try WorkerMessage(decoding: [WorkerMessage.version, 250])
        }
    }

    /// A count is believed only as far as bytes are there: no length makes the decoder allocate gigabytes.
    @Test func hugeCountsAreRefused() {
        let count: [UInt8] = [0xff, 0xff, 0xff, 0xff]
        for prefix: [UInt8] in [
            [WorkerMessage.version, 68] + [UInt8](repeating: 0, count: 8),
            [WorkerMessage.version, 66] + [UInt8](repeating: 0, count: 12),
        ] {
            #expect(throws: WorkerMessageError.truncated) { try WorkerMessage(decoding: prefix + count) }
        }
    }

    /// Random bytes, and messages with random bytes changed: the decoder answers or throws, and what it accepts encodes
    /// to something it accepts again.
    @Test func fuzz() throws {
        var random = SplitMix(state: 1)
        for round in 0..<40_000 {
            var bytes: [UInt8]
            if round.isMultiple(of: 4) {
                bytes = (0..<Int.random(in: 0...64, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
                if bytes.count > 2 { bytes[0] = WorkerMessage.version }
            } else {
                bytes = Self.samples[round % Self.samples.count].encoded()
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
            }
            guard let message = try? WorkerMessage(decoding: bytes) else { continue }
            #expect(try WorkerMessage(decoding: message.encoded()) == message)
        }
    }
}
