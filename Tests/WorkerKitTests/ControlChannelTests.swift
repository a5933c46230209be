import Testing
import WorkerProtocol

@testable import WorkerKit

/// A worker that had more to say than a control message holds trapped instead of saying why it fails.
@Suite struct ControlChannelTests {
    private static let long = String(repeating: "ü\n", count: 100_000)

    private static let messages: [WorkerMessage] = [
        .ready(detail: long), .pong(7, status: long, trouble: ""), .failed(reason: long, cause: .disk),
        .renew(reason: long), .explained(cause: long),
    ]

    // By number: the log of the tests shows arguments in full.
    @Test(arguments: messages.indices)
    func textsThatDoNotFitAreCut(_ number: Int) throws {
        let message = Self.messages[number]
        let bytes = ControlChannel.fitting(message)
        #expect(bytes.count < 64 << 10)
        let read = try bytes.withUnsafeBytes { try WorkerMessage(decoding: $0) }
        #expect("\(read)".contains("bytes more)") && "\(read)".prefix(5) == "\(message)".prefix(5))
        if case .failed(_, let cause) = read { #expect(cause == .disk) }
    }

    @Test func aStartWithoutFreeDescriptorsSaysWhichSettingHelps() {
        let id = WorkerID(.filter, 2)
        func text(_ descriptors: [Int32]) -> String? {
            WorkerMain.descriptorShortage(id, ["a", "b"], descriptors, for: "its start")
        }
        #expect(text([7, 8]) == nil)
        for word in ["for its start", "limits.filter.files", "apus restart filter@2"] {
            #expect(text([])?.contains(word) == true)
        }
    }

    @Test func whatFitsIsAsItIs() throws {
        let message = WorkerMessage.failed(reason: "a\nb", cause: .own)
        #expect(ControlChannel.fitting(message) == message.encoded())
    }
}
