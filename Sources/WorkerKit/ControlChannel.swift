import Glibc
import LinuxSystem
import WorkerProtocol

/// The worker's end of the supervisor's control channel: descriptor 3, one message a datagram. Receiving belongs to the
/// main thread; sending is one atomic system call and may come from any thread.
struct ControlChannel: Sendable {
    static let descriptor: Int32 = 3
    /// How often, 10 ms apart, a message waits for free descriptors that it needs: no longer than a heartbeat.
    private static let triesMax = 100

    /// nil: the supervisor closed it or died. A message whose descriptors find no free ones, not in the reserve either,
    /// comes without them.
    func receive() throws -> (message: WorkerMessage, descriptors: [Int32])? {
        try withUnsafeTemporaryAllocation(byteCount: WorkerMessage.controlBytesMax, alignment: 8) { buffer in
            var tries = 0
            func makeRoom() -> Bool {
                if DescriptorReserve.shared.lend() { return true }
                tries += 1
                poll(nil, 0, 10)
                return tries < Self.triesMax
            }
            do {
                guard
                    let (count, descriptors) = try DescriptorPassing.receive(
                        into: buffer, from: ControlChannel.descriptor, wait: true, makeRoom: makeRoom)
                else { return nil }
                let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                return (try WorkerMessage(decoding: bytes), descriptors)
            } catch let error as SystemError where error.errno == ECONNRESET {
                return nil
            }
        }
    }

    /// Answers to heartbeats are dropped rather than waited for when the supervisor does not read (`wait` false). What
    /// cannot be sent because the supervisor has ended is dropped, too: `receive` notices.
    func send(_ message: WorkerMessage, descriptors: [Int32] = [], wait: Bool) {
        let bytes = Self.fitting(message)
        precondition(bytes.count <= WorkerMessage.controlBytesMax, "a control message of \(bytes.count) bytes")
        do {
            try bytes.withUnsafeBytes {
                try DescriptorPassing.send(
                    $0, descriptors: descriptors, to: ControlChannel.descriptor, wait: wait)
            }
        } catch let error as SystemError {
            precondition(
                [EAGAIN, EPIPE, ECONNRESET, ENOTCONN, ENOBUFS, ETOOMANYREFS].contains(error.errno),
                "control channel: \(error)")
        } catch {
            preconditionFailure("control channel: \(error)")
        }
    }

    /// Longer texts are cut where a message would not fit: they name files, settings and texts of plugins and peers.
    private static let textBytesMax = 8 << 10

    static func fitting(_ message: WorkerMessage) -> [UInt8] {
        let whole = message.encoded()
        guard whole.count > WorkerMessage.controlBytesMax else { return whole }
        func cut(_ text: String) -> String { PlainText.escaped(text, bytesMax: textBytesMax) }
        let short: WorkerMessage =
            switch message {
            case .ready(let detail): .ready(detail: cut(detail))
            case .pong(let number, let status, let trouble):
                .pong(number, status: cut(status), trouble: cut(trouble))
            case .failed(let reason, let cause): .failed(reason: cut(reason), cause: cause)
            case .renew(let reason): .renew(reason: cut(reason))
            case .explained(let cause): .explained(cause: cut(cause))
            default: message
            }
        return short.encoded()
    }
}
