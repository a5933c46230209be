import FastJSON
import NIOCore
import RemotingProtocol
import RemotingTransport

/// Answers that hold a whole table (21, 43, 201), which may be megabytes. The text is made on another thread, once for
/// all clients that asked before it was begun. Their connections share its bytes. The one that asks is not read from
/// until it is answered, so that a connection has one such answer under way. Confined to the broker's event loop.
final class TableAnswers {
    typealias File = ConfigurationFile

    /// A table with fewer entries is answered at once.
    static let entriesAtOnce = 256
    /// Of one body: no client takes a larger frame, and the header has some of it.
    static let bytesMax = RemotingLimits.frameBytes - (64 << 10)
    /// Of a whole table, which a slave with a larger bound of its own may take; as much as its file may have.
    static let fileBytesMax = 1 << 30

    /// What answers under way have noted.
    let rows = RowBounds()
    private let slices: SlicedWork
    private let files: TableFiles
    private let work: any BackgroundWork
    /// Those whose text is being made, and those that came after it was begun: what they ask for may be newer.
    private var asking: [File: [Asker]] = [:]
    private var next: [File: [Asker]] = [:]
    /// Texts made on the other thread; for tests.
    private(set) var texts = 0

    init(_ environment: BrokerEnvironment, _ files: TableFiles) {
        slices = environment.slices
        work = environment.textWork
        self.files = files
    }

    /// Answers with a whole table as GET_ALL_… asks for it.
    func answer(with file: File, _ asker: Asker) {
        let table = files[file]
        guard table.entryCount >= Self.entriesAtOnce else {
            return asker.answer(.success, body: table.fileJSON.bytes())
        }
        asker.client.connection.awaitsAnswer = true
        guard asking[file] == nil else { return next[file, default: []].append(asker) }
        begin(file, [asker])
    }

    /// Answers with a body that may be large: its text is then made on another thread, and shared, not copied.
    func answer(with body: JSONValue, entries: Int, _ asker: Asker) {
        answer(entries: entries, asker) { body }
    }

    /// The same where making the body takes a while, too: of many entries that is done on the other thread.
    /// - Parameter noted: what was noted for it, which ends with the text.
    func answer(
        entries: Int, _ asker: Asker, of noted: RowBounds.Rows? = nil,
        making body: @escaping @Sendable () -> JSONValue
    ) {
        guard entries >= Self.entriesAtOnce else {
            asker.client.connection.awaitsAnswer = false
            if let noted { rows.end(noted) }
            guard let bytes = Self.bytes(of: body(), atMost: Self.bytesMax) else {
                return Self.refuse(asker, atMost: Self.bytesMax)
            }
            return asker.answer(.success, body: bytes)
        }
        asker.client.connection.awaitsAnswer = true
        noted?.isMadeToText = true
        work.submit(
            { () -> ByteBuffer? in Self.text(of: body(), atMost: Self.bytesMax) },
            then: { [self] text in
                if let noted { rows.end(noted) }
                Self.answer(asker, text, atMost: Self.bytesMax)
            })
    }

    /// Any thread.
    /// - Returns: `nil` for more bytes; it is not written to its end then.
    private static func bytes(of body: JSONValue, atMost bytes: Int) -> [UInt8]? {
        try? body.bytes([], within: JSONReader.Limits(depth: .max, bytes: bytes))
    }

    private static func text(of body: JSONValue, atMost bytes: Int) -> ByteBuffer? {
        Self.bytes(of: body, atMost: bytes).map { ByteBuffer(bytes: $0) }
    }

    private static func answer(_ asker: Asker, _ text: ByteBuffer?, atMost bytes: Int) {
        asker.client.connection.awaitsAnswer = false
        guard let text else { return refuse(asker, atMost: bytes) }
        asker.client.connection.respond(to: asker.address, .success, sharedBody: text)
    }

    /// For an answer that has more bytes.
    static func refuse(_ asker: Asker, atMost bytes: Int) {
        asker.answer(
            .systemError,
            remark: "the answer would have more than \(bytes) bytes, and no client takes it in one frame: ask for one "
                + "group or one topic, or delete what is not used")
    }

    private func begin(_ file: File, _ askers: [Asker]) {
        asking[file] = askers
        texts += 1
        files[file].copied(in: slices) { [self] json in
            work.submit(
                { () -> ByteBuffer? in Self.text(of: json(), atMost: Self.fileBytesMax) },
                then: { [self] text in made(file, text) })
        }
    }

    private func made(_ file: File, _ text: ByteBuffer?) {
        for asker in asking.removeValue(forKey: file) ?? [] { Self.answer(asker, text, atMost: Self.fileBytesMax) }
        if let askers = next.removeValue(forKey: file) { begin(file, askers) }
    }

}
