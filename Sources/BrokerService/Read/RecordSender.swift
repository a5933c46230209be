import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Writes ranges of the log to connections: short ones copied, long ones by `sendfile`. On the broker's event loop.
final class RecordSender {
    /// `Tests/Scripts/pull-benchmark` measures both ways.
    static let sendfileBytesMin = FileSending.bytesMin

    private let environment: BrokerEnvironment
    private let store: MessageStore
    let transfer: LogFileTransfer
    /// Ranges of at least so many bytes leave by `sendfile`; shorter ones are copied.
    private let sendfileBytesMin: Int

    init(_ environment: BrokerEnvironment, _ store: MessageStore) {
        self.environment = environment
        self.store = store
        transfer = LogFileTransfer(store)
        sendfileBytesMin =
            environment.configuration.integer("sendfileBytesMin").map { Int($0) } ?? Self.sendfileBytesMin
    }

    /// Whether at least one of them leaves by `sendfile`.
    func needsSendfile(_ ranges: [LogRange]) -> Bool { ranges.contains { $0.length >= sendfileBytesMin } }

    /// Copies ranges into an answer.
    func copy(_ ranges: [LogRange], into buffer: inout ByteBuffer) {
        for range in ranges { _ = store.withBytes(range) { buffer.writeBytes($0) } }
    }

    /// Ranges of the log after a header that has announced them: long ones from the log file's pages, short ones
    /// through the buffer.
    ///
    /// All of it is written and lies below the log's end, so none of it changes; the file stays open as long as the
    /// transfer.
    func send(_ ranges: [LogRange], on connection: RemotingConnection) {
        var index = 0
        while index < ranges.count {
            let range = ranges[index]
            if range.length >= sendfileBytesMin, let part = transfer.find(range) {
                let file = NIOLoopBound(part.file, eventLoop: environment.eventLoop)
                connection.write(file: part.region).whenComplete { _ in withExtendedLifetime(file.value) {} }
                index += 1
                continue
            }
            // It and the short ones behind it go into the buffer together.
            // Stays false on a closed connection, which takes nothing.
            var isThere = false
            connection.write { buffer in
                repeat {
                    isThere = store.withBytes(ranges[index]) { _ = buffer.writeBytes($0) } != nil
                    if isThere { index += 1 }
                } while isThere && index < ranges.count && ranges[index].length < sendfileBytesMin
            }
            // Its length has been promised already.
            guard isThere else {
                return connection.close(reason: "the log could not be read at \(ranges[index].start)")
            }
        }
    }

    /// A record whose message was delivered so many times before: copied, with that number in it. Its body's checksum
    /// does not cover the number.
    func sendRedelivered(_ range: LogRange, reconsumeTimes: Int32, on connection: RemotingConnection) {
        var isThere = false
        connection.write { buffer in
            let start = buffer.writerIndex
            isThere =
                store.withBytes(range) { bytes in
                    buffer.writeBytes(bytes)
                    guard case .record(let record) = CommitLogRecord.parse(bytes) else { return }
                    buffer.setInteger(
                        max(record.reconsumeTimes, reconsumeTimes), at: start + record.reconsumeTimesPosition)
                } != nil
        }
        // Its length has been promised already.
        guard isThere else { return connection.close(reason: "the log could not be read at \(range.start)") }
    }

    /// Answers a request that is no pull with messages.
    func answer(
        with ranges: [LogRange], _ asker: Asker, fields: [(String, String)] = []
    ) {
        guard !asker.address.isOneway else { return }
        let total = ranges.reduce(0) { $0 + $1.length }
        asker.client.connection.write { buffer in
            ResponseEncoder.encode(
                into: &buffer, asker.address, ResponseCode.success.rawValue, remark: nil, fields: fields,
                bodyCount: total)
        }
        send(ranges, on: asker.client.connection)
    }
}
