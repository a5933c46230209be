import Claims
import NIOCore
import RemotingProtocol
import RemotingTransport

/// APUS_GET_CLAIMS (32001): a slave copies the files of claims. Body of the request: a question of `ClaimMirror`; body
/// of the answer: what `ClaimFeed` says. Confined to the broker's event loop.
final class ClaimFilesProcessor {
    private let claims: GroupClaims

    init(_ claims: GroupClaims) { self.claims = claims }

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let asker = request.asker
        switch claims.feed.reply(to: request.body) {
        case .ready(let body): asker.answer(.success, body: body)
        case .refused(let reason): asker.answer(.systemError, remark: reason)
        case .read(let read):
            // One file is read for a connection at a time.
            asker.client.connection.awaitsAnswer = true
            claims.feedWork.submit({ read().map { ByteBuffer(bytes: $0) } }) { result in
                asker.client.connection.awaitsAnswer = false
                switch result {
                case .success(let body):
                    asker.client.connection.respond(to: asker.address, .success, sharedBody: body)
                case .failure(let error):
                    asker.answer(.systemError, remark: "the journal of claims cannot be read: \(error)")
                }
            }
        }
    }
}
