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
    func answer(
        entries: Int, _ asker: Asker,
        making body: @escaping @Sendable () -> JSONValue
    ) {
        guard entries >= Self.entriesAtOnce else {
            asker.client.connection.awaitsAnswer = false
            return asker.answer(.success, body: body().bytes())
        }
        asker.client.connection.awaitsAnswer = true
        work.submit(
            { () -> ByteBuffer in ByteBuffer(bytes: body().bytes()) },
            then: { text in
                asker.client.connection.awaitsAnswer = false
                asker.client.connection.respond(to: asker.address, .success, sharedBody: text)
            })
    }

    private func begin(_ file: File, _ askers: [Asker]) {
        asking[file] = askers
        texts += 1
        files[file].copied(in: slices) { [self] json in
            work.submit(
                { () -> ByteBuffer in ByteBuffer(bytes: json().bytes()) },
                then: { [self] text in made(file, text) })
        }
    }

    private func made(_ file: File, _ text: ByteBuffer) {
        for asker in asking.removeValue(forKey: file) ?? [] {
            asker.client.connection.awaitsAnswer = false
            asker.client.connection.respond(to: asker.address, .success, sharedBody: text)
        }
        if let askers = next.removeValue(forKey: file) { begin(file, askers) }
    }

}
