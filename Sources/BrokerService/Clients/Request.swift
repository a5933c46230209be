import RemotingProtocol
import RemotingTransport

/// One request while its processor runs: the frame and its sender. The frame is a view of the read buffer and valid
/// inside the call only, so a request cannot be copied or kept. What waits for an answer keeps an `Asker`.
struct Request: ~Copyable {
    let frame: RemotingFrame
    let client: ClientContext

    @inline(__always)
    init(_ frame: RemotingFrame, _ client: ClientContext) {
        self.frame = frame
        self.client = client
    }

    var extFields: ExtFields { frame.extFields }
    var body: UnsafeRawBufferPointer { frame.body }
    var returnAddress: ReturnAddress { frame.returnAddress }
    /// The client that waits for the answer.
    var asker: Asker { Asker(client: client, address: frame.returnAddress) }

    func answer(
        _ code: ResponseCode, remark: String? = nil, fields: [(String, String)] = [], body: [UInt8] = []
    ) {
        client.answer(frame.returnAddress, code, remark: remark, fields: fields, body: body)
    }
}

/// A client that waits for an answer; may be kept.
struct Asker {
    let client: ClientContext
    let address: ReturnAddress

    func answer(
        _ code: ResponseCode, remark: String? = nil, fields: [(String, String)] = [], body: [UInt8] = []
    ) {
        client.answer(address, code, remark: remark, fields: fields, body: body)
    }
}

extension SlicedWork {
    /// Work for one request: a slice now, the rest in later turns. Meanwhile no further request of the connection is
    /// read; after it has closed the result is not wanted.
    /// - Parameters:
    ///   - slice: does a bounded part; `true` when there is more.
    ///   - then: called when all is done. It answers.
    func work(for client: ClientContext, _ slice: @escaping () -> Bool, then: @escaping () -> Void) {
        let step = { () -> Bool in
            guard !client.connection.isClosed else { return false }
            if slice() { return true }
            client.connection.awaitsAnswer = false
            then()
            return false
        }
        guard step() else { return }
        client.connection.awaitsAnswer = true
        add(step)
    }
}
