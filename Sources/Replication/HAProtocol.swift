package import NIOCore

/// The HA protocol between a slave and its master, as RocketMQ 4.9 speaks it over one TCP connection:
///
///     slave → master   | max offset of the slave's commit log 8 |                      again after progress, at least every 5 s
///     master → slave   | physical offset 8 | size 4 | size bytes of the commit log |   size 0: heartbeat, every 5 s without data
///
/// All numbers are big-endian. The first report asks for everything from there on; 0 asks from the beginning of the
/// master's last file.
package enum HAProtocol {
    /// Bytes; so the next.
    package static let reportSize = 8
    /// Bytes before the log's: offset 8, size 4.
    package static let headerSize = 12
    /// No log begins after this offset: adding to one must not overflow.
    static let offsetMax: Int64 = 1 << 60
    /// Largest body a slave takes, in bytes: Apache's slave has a buffer of this size for header and body together.
    package static let maximumBody = 4 * 1024 * 1024 - headerSize
}

/// The two intervals and the piece size of the protocol, with RocketMQ's setting names and defaults.
package struct HATimes: Sendable {
    /// `haSendHeartbeatInterval`: the longest silence towards the other side.
    package var heartbeat: TimeAmount
    /// `haHousekeepingInterval`: after this much silence the other side counts as lost.
    package var housekeeping: TimeAmount

    /// Less than 1 ms becomes 1 ms.
    package init(heartbeatMilliseconds: Int = 5_000, housekeepingMilliseconds: Int = 20_000) {
        heartbeat = .milliseconds(Int64(max(1, heartbeatMilliseconds)))
        housekeeping = .milliseconds(Int64(max(1, housekeepingMilliseconds)))
    }
}

/// What a master knows of one slave and what it sends next. No I/O: the connection feeds it bytes and asks.
package struct HASession {
    /// Whether a slave may go on.
    package enum Judgement: Equatable {
        case carryOn
        case close(reason: String)
    }

    /// A transfer: `size` bytes of the commit log from `offset` on, inside one file. Size 0 is a heartbeat.
    package struct Transfer: Equatable {
        /// Bytes from the log's beginning; then how many.
        package var offset: Int64
        /// Bytes; 0 is a heartbeat.
        package var size: Int
    }

    /// State of the master's log at this moment.
    package struct Log: Equatable {
        /// Where its first file begins, where it ends, and the bytes of a file.
        package var minimum: Int64
        /// End of the log: a physical offset.
        package var written: Int64
        /// Bytes of a commit log file.
        package var fileSize: Int64

        /// - Parameter fileSize: above 0.
        package init(minimum: Int64, written: Int64, fileSize: Int64) {
            precondition(fileSize > 0, "a commit log file has a size")
            self.minimum = minimum
            self.written = written
            self.fileSize = fileSize
        }
    }

    /// `haTransferBatchSize`.
    private let batchSize: Int
    /// What the slave reported last; nil before its first report.
    package private(set) var acknowledged: Int64?
    /// What the slave gets next; nil until the log has been looked at after the first report.
    package private(set) var next: Int64?
    /// Bytes of a report that has not arrived in full.
    private var partial: UInt64 = 0
    private var partialBytes = 0

    /// - Parameter batchSize: bytes of one transfer, cut to 1...`HAProtocol.maximumBody`.
    package init(batchSize: Int = 32 * 1024) {
        self.batchSize = min(max(1, batchSize), HAProtocol.maximumBody)
    }

    /// Takes in report bytes, in pieces as they came. Of several reports the last one counts.
    package mutating func received(_ bytes: some Sequence<UInt8>) {
        for byte in bytes {
            partial = partial << 8 | UInt64(byte)
            partialBytes += 1
            if partialBytes == HAProtocol.reportSize {
                acknowledged = Int64(bitPattern: partial)
                partialBytes = 0
            }
        }
    }

    /// Compares the slave's report with the log. To be called after each report and whenever the log was opened anew.
    package mutating func judge(_ log: Log) -> Judgement {
        guard let acknowledged else { return .carryOn }
        guard acknowledged >= 0 else { return .close(reason: "the slave reports the offset \(acknowledged)") }
        // Apache takes any first report and would go on sending when its own log has grown past the gap. The two logs
        // would differ from then on. So a slave that is ahead is refused at once.
        guard acknowledged <= log.written, next ?? 0 <= log.written else {
            return .close(
                reason:
                    "the slave has \(max(acknowledged, next ?? 0)) bytes, this master \(log.written): the slave holds "
                    + "messages the master does not have. Make the slave the master, or empty the slave's store")
        }
        if let next, acknowledged > next {
            return .close(reason: "the slave reports \(acknowledged), but was only sent the log up to \(next)")
        }
        if next == nil {
            next = acknowledged == 0 ? log.written - log.written % log.fileSize : acknowledged
        }
        if let next, next < log.minimum {
            return .close(
                reason:
                    "the slave needs \(next), but this master's log begins at \(log.minimum): the slave was away "
                    + "longer than messages are kept. Empty its store")
        }
        return .carryOn
    }

    /// The next piece of the log for this slave, or nil when it has everything. Never crosses a file's end.
    package mutating func nextTransfer(_ log: Log) -> Transfer? {
        guard let next, next < log.written else { return nil }
        let fileEnd = next - next % log.fileSize + log.fileSize
        let size = min(Int64(batchSize), log.written - next, fileEnd - next)
        self.next = next + size
        return Transfer(offset: next, size: Int(size))
    }

    /// A header without bytes; nil before the slave has reported its offset.
    package var heartbeat: Transfer? { next.map { Transfer(offset: $0, size: 0) } }
}

extension HASession.Transfer {
    /// 12 bytes; the log's own follow.
    package func writeHeader(into buffer: inout ByteBuffer) {
        buffer.writeInteger(offset)
        buffer.writeInteger(Int32(size))
    }
}

/// What a slave reads from its master: takes pieces apart as they come, checks that they continue its own log.
package struct HAReceiver {
    /// What one step gave.
    package enum Event: Equatable {
        /// Bytes for the log at `at`: a whole body or a part of one, never empty.
        case bytes(at: Int64, ByteBuffer)
        case heartbeat
    }

    /// What no master sends: the connection ends.
    package enum Failure: Error, Equatable, CustomStringConvertible {
        case offset(master: Int64, slave: Int64)
        case size(Int32)

        package var description: String {
            switch self {
            case .offset(let master, let slave):
                "the master sends from \(master) on, this slave's log ends at \(slave)"
            case .size(let size):
                "the master announces \(size) bytes; 0 to \(HAProtocol.maximumBody) are possible"
            }
        }
    }

    /// Where the log ends when everything handed out so far is in it.
    package private(set) var next: Int64
    private var header = ByteBuffer()
    /// Bytes of the current body still to come.
    private var missing = 0

    package init(next: Int64) {
        self.next = next
    }

    /// Takes one step through `input`; nil when it needs more bytes.
    /// - Throws: the other side broke the protocol; with the reason.
    package mutating func read(_ input: inout ByteBuffer) throws(Failure) -> Event? {
        if missing == 0 {
            guard
                var piece = input.readSlice(
                    length: min(HAProtocol.headerSize - header.readableBytes, input.readableBytes))
            else { return nil }
            header.writeBuffer(&piece)
            guard header.readableBytes == HAProtocol.headerSize, let offset = header.readInteger(as: Int64.self),
                let size = header.readInteger(as: Int32.self)
            else { return nil }
            header.clear()
            guard size >= 0, size <= HAProtocol.maximumBody else { throw .size(size) }
            // An empty log takes the master's choice of a beginning, as Apache's does.
            guard offset == next || (next == 0 && (0...HAProtocol.offsetMax).contains(offset)) else {
                throw .offset(master: offset, slave: next)
            }
            guard size > 0 else { return .heartbeat }
            next = offset
            missing = Int(size)
        }
        guard input.readableBytes > 0, let part = input.readSlice(length: min(missing, input.readableBytes)) else {
            return nil
        }
        let at = next
        next += Int64(part.readableBytes)
        missing -= part.readableBytes
        return .bytes(at: at, part)
    }
}
