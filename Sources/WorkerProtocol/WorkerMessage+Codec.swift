extension WorkerMessage {
    /// Byte 0 is the version, byte 1 the tag below, then come the fields in the order of the case. Integers are
    /// big-endian. Strings, bytes and lists come after their count (4 bytes).
    private enum Tag: UInt8 {
        case setup = 1
        case peer, setupDone, ping, drain, reload, extend, connections, pardon
        case ready = 32
        case pong, failed, drained, renew, explained, report
        case topicCreated = 48
        case filterCompile = 64
        case filterRelease, filterBatch, filterCompiled, filterMatched, filterFailed, filterServes
        case replicaBytes = 96
        case replicaMetadata, replicaState, replicaPosition, replicaRefused, brokerRole, slaves, slavesWanted
        case claimsWanted, claims
    }

    /// One message, as `Tag` describes it.
    package func encoded() -> [UInt8] {
        var writer = WireWriter()
        encode(into: &writer)
        return writer.bytes + writer.tail
    }

    /// With the length in front, as peer links carry it.
    package func encodedFrame() -> [UInt8] {
        let (head, tail) = encodedFrameParts()
        return head + tail
    }

    /// A frame in two parts, of which the second is the message's own bytes, uncopied: they may be many.
    package func encodedFrameParts() -> (head: [UInt8], tail: [UInt8]) {
        var writer = WireWriter()
        writer.integer(UInt32(0))
        encode(into: &writer)
        let length = UInt32(writer.bytes.count + writer.tail.count - 4)
        withUnsafeBytes(of: length.bigEndian) { writer.bytes.replaceSubrange(0..<4, with: $0) }
        return (writer.bytes, writer.tail)
    }

    private func encode(into writer: inout WireWriter) {
        func begin(_ tag: Tag) {
            writer.integer(WorkerMessage.version)
            writer.integer(tag.rawValue)
        }
        switch self {
        case .setup(let kind, let index, let settings, let descriptors):
            begin(.setup)
            writer.string(kind.rawValue)
            writer.integer(UInt32(index))
            writer.settings(settings)
            writer.strings(descriptors)
        case .peer(let kind, let index):
            begin(.peer)
            writer.string(kind.rawValue)
            writer.integer(UInt32(index))
        case .setupDone: begin(.setupDone)
        case .connections: begin(.connections)
        case .ping(let number):
            begin(.ping)
            writer.integer(number)
        case .drain(let reason):
            begin(.drain)
            writer.integer(reason.rawValue)
        case .reload(let settings):
            begin(.reload)
            writer.settings(settings)
        case .extend(let descriptors):
            begin(.extend)
            writer.strings(descriptors)
        case .ready(let detail):
            begin(.ready)
            writer.string(detail)
        case .pong(let number, let status, let trouble):
            begin(.pong)
            writer.integer(number)
            writer.string(status)
            writer.string(trouble)
        case .failed(let reason, let cause):
            begin(.failed)
            writer.string(reason)
            writer.integer(cause.rawValue)
        case .drained: begin(.drained)
        case .pardon(let name):
            begin(.pardon)
            writer.string(name)
        case .renew(let reason):
            begin(.renew)
            writer.string(reason)
        case .explained(let cause):
            begin(.explained)
            writer.string(cause)
        case .report(let json):
            begin(.report)
            writer.string(json)
        case .topicCreated(let topic):
            begin(.topicCreated)
            writer.string(topic.name)
            writer.integer(topic.readQueues)
            writer.integer(topic.writeQueues)
            writer.integer(topic.permission)
            writer.integer(topic.sysFlag)
            writer.string(topic.filterType)
        case .filterCompile(let request, let type, let expression):
            begin(.filterCompile)
            writer.integer(request)
            writer.string(type)
            writer.string(expression)
        case .filterRelease(let program):
            begin(.filterRelease)
            writer.integer(program)
        case .filterBatch(let request, let program, let entries):
            begin(.filterBatch)
            writer.integer(request)
            writer.integer(program)
            writer.lastBlob(entries)
        case .filterCompiled(let request, let result):
            begin(.filterCompiled)
            writer.integer(request)
            writer.compilation(result)
        case .filterMatched(let request, let bitmap):
            begin(.filterMatched)
            writer.integer(request)
            writer.blob(bitmap)
        case .filterFailed(let request, let unknownProgram, let reason):
            begin(.filterFailed)
            writer.integer(request)
            writer.bool(unknownProgram)
            writer.string(reason)
        case .filterServes(let rank, let types):
            begin(.filterServes)
            writer.integer(rank)
            writer.strings(types)
        case .replicaBytes(let at, let bytes):
            begin(.replicaBytes)
            writer.integer(at)
            writer.lastBlob(bytes)
        case .replicaMetadata(let kind, let json):
            begin(.replicaMetadata)
            writer.integer(kind.rawValue)
            writer.blob(json)
        case .replicaState(let connected, let master):
            begin(.replicaState)
            writer.bool(connected)
            writer.string(master)
        case .replicaPosition(let next):
            begin(.replicaPosition)
            writer.integer(next)
        case .replicaRefused(let at, let reason):
            begin(.replicaRefused)
            writer.integer(at)
            writer.string(reason)
        case .brokerRole(let role, let address):
            begin(.brokerRole)
            writer.integer(role.rawValue)
            writer.string(address)
        case .slaves(let request, let reports):
            begin(.slaves)
            writer.integer(request)
            writer.slaves(reports)
        case .slavesWanted(let request):
            begin(.slavesWanted)
            writer.integer(request)
        case .claimsWanted(let request, let question):
            begin(.claimsWanted)
            writer.integer(request)
            writer.blob(question)
        case .claims(let request, let answer):
            begin(.claims)
            writer.integer(request)
            writer.claims(answer)
        }
    }

    /// Decodes exactly one message that fills `bytes`.
    /// - Throws: the bytes are no message of this version, or not exactly one.
    package init(decoding bytes: UnsafeRawBufferPointer) throws(WorkerMessageError) {
        var reader = WireReader(bytes: bytes)
        let version = try reader.integer(UInt8.self)
        guard version == WorkerMessage.version else { throw .unknownVersion(version) }
        let code = try reader.integer(UInt8.self)
        guard let tag = Tag(rawValue: code) else { throw .unknownMessage(code) }
        self = try WorkerMessage.fields(of: tag, from: &reader)
        guard reader.remaining == 0 else { throw .trailingBytes(reader.remaining) }
    }

    /// - Throws: the bytes are no message of this version, or not exactly one.
    package init(decoding bytes: [UInt8]) throws(WorkerMessageError) {
        let result = bytes.withUnsafeBytes { pointer in
            Result { () throws(WorkerMessageError) in try WorkerMessage(decoding: pointer) }
        }
        self = try result.get()
    }

    private static func fields(of tag: Tag, from reader: inout WireReader) throws(WorkerMessageError) -> WorkerMessage {
        switch tag {
        case .setup:
            .setup(
                kind: try reader.kind(), index: Int(try reader.integer(UInt32.self)), settings: try reader.settings(),
                descriptors: try reader.strings())
        case .peer: .peer(kind: try reader.kind(), index: Int(try reader.integer(UInt32.self)))
        case .connections: .connections
        case .setupDone: .setupDone
        case .ping: .ping(try reader.integer())
        case .drain: .drain(try reader.drainReason())
        case .reload: .reload(settings: try reader.settings())
        case .extend: .extend(descriptors: try reader.strings())
        case .ready: .ready(detail: try reader.string())
        case .pong:
            .pong(try reader.integer(), status: try reader.string(), trouble: try reader.string())
        case .failed: .failed(reason: try reader.string(), cause: try reader.cause())
        case .drained: .drained
        case .pardon: .pardon(name: try reader.string())
        case .renew: .renew(reason: try reader.string())
        case .explained: .explained(cause: try reader.string())
        case .report: .report(json: try reader.string())
        case .topicCreated: .topicCreated(try reader.topic())
        case .filterCompile:
            .filterCompile(
                request: try reader.integer(), type: try reader.string(), expression: try reader.string())
        case .filterRelease: .filterRelease(program: try reader.integer())
        case .filterBatch:
            .filterBatch(
                request: try reader.integer(), program: try reader.integer(), entries: try reader.entries())
        case .filterCompiled:
            .filterCompiled(request: try reader.integer(), result: try reader.compilation())
        case .filterMatched: .filterMatched(request: try reader.integer(), bitmap: try reader.blob())
        case .filterFailed:
            .filterFailed(
                request: try reader.integer(), unknownProgram: try reader.bool(), reason: try reader.string())
        case .filterServes: .filterServes(rank: try reader.integer(), types: try reader.strings())
        case .replicaBytes: .replicaBytes(at: try reader.integer(), bytes: try reader.blob())
        case .replicaMetadata: .replicaMetadata(kind: try reader.metadataKind(), json: try reader.blob())
        case .replicaState: .replicaState(connected: try reader.bool(), master: try reader.string())
        case .replicaPosition: .replicaPosition(next: try reader.integer())
        case .replicaRefused: .replicaRefused(at: try reader.integer(), reason: try reader.string())
        case .brokerRole: .brokerRole(try reader.role(), masterAddress: try reader.string())
        case .slaves: .slaves(request: try reader.integer(), try reader.slaves())
        case .slavesWanted: .slavesWanted(request: try reader.integer())
        case .claimsWanted: .claimsWanted(request: try reader.integer(), question: try reader.blob())
        case .claims: .claims(request: try reader.integer(), try reader.claims())
        }
    }
}

extension WireWriter {
    mutating func codes(_ codes: [Int64]) {
        integer(UInt32(codes.count))
        for code in codes { integer(code) }
    }

    mutating func compilation(_ value: FilterCompilation) {
        switch value {
        case .everything: integer(UInt8(5))
        case .tagsCodes(let codes):
            integer(UInt8(1))
            self.codes(codes)
        case .program(let program, nil):
            integer(UInt8(2))
            integer(program)
        case .program(let program, let prefilter?):
            integer(UInt8(6))
            integer(program)
            codes(prefilter)
        case .refused(let position, let reason):
            integer(UInt8(3))
            integer(position)
            string(reason)
        case .unavailable(let reason):
            integer(UInt8(4))
            string(reason)
        case .elsewhere(let types, let reason):
            integer(UInt8(7))
            strings(types)
            string(reason)
        }
    }
}

extension WireWriter {
    mutating func claims(_ answer: ClaimsAnswer) {
        switch answer {
        case .answered(let bytes):
            integer(UInt8(1))
            lastBlob(bytes)
        case .unknown: integer(UInt8(2))
        case .failed(let reason):
            integer(UInt8(3))
            string(reason)
        }
    }
}

extension WireReader {
    mutating func claims() throws(WorkerMessageError) -> ClaimsAnswer {
        switch try integer(UInt8.self) {
        case 1: return .answered(try blob())
        case 2: return .unknown
        case 3: return .failed(reason: try string())
        default: throw .invalidField("answer about claims")
        }
    }

    mutating func compilation() throws(WorkerMessageError) -> FilterCompilation {
        switch try integer(UInt8.self) {
        case 1: return .tagsCodes(try codes())
        case 2: return .program(try integer())
        case 6: return .program(try integer(), prefilter: try codes())
        case 3: return .refused(position: try integer(), reason: try string())
        case 4: return .unavailable(reason: try string())
        case 5: return .everything
        case 7: return .elsewhere(types: try strings(), reason: try string())
        default: throw .invalidField("filter compilation")
        }
    }

    mutating func codes() throws(WorkerMessageError) -> [Int64] {
        let count = try count(of: 8)
        var codes: [Int64] = []
        codes.reserveCapacity(count)
        for _ in 0..<count { codes.append(try integer()) }
        return codes
    }

    mutating func entries() throws(WorkerMessageError) -> [UInt8] {
        let entries = try blob()
        guard entries.count % WorkerMessage.filterEntryBytes == 0 else { throw .invalidField("filter entries") }
        return entries
    }

    mutating func metadataKind() throws(WorkerMessageError) -> ReplicaMetadataKind {
        guard let kind = ReplicaMetadataKind(rawValue: try integer()) else { throw .invalidField("metadata kind") }
        return kind
    }

    mutating func drainReason() throws(WorkerMessageError) -> DrainReason {
        guard let reason = DrainReason(rawValue: try integer()) else { throw .invalidField("drain reason") }
        return reason
    }

    mutating func cause() throws(WorkerMessageError) -> FailureCause {
        guard let cause = FailureCause(rawValue: try integer()) else { throw .invalidField("failure cause") }
        return cause
    }

    mutating func topic() throws(WorkerMessageError) -> AutoCreatedTopic {
        AutoCreatedTopic(
            name: try string(), readQueues: try integer(), writeQueues: try integer(), permission: try integer(),
            sysFlag: try integer(), filterType: try string())
    }

    mutating func role() throws(WorkerMessageError) -> BrokerRole {
        guard let role = BrokerRole(rawValue: try integer()) else { throw .invalidField("broker role") }
        return role
    }
}
