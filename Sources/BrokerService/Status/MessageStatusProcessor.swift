import Claims
import MessageModel
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// APUS_GET_MESSAGE_STATUS (31001, Apus's own): what has become of a message for each group, and what it has been
/// through. Confined to the broker's event loop.
final class MessageStatusProcessor {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let claims: GroupClaims
    private let kinds: MessageKinds
    private let finder: MessageFinder

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ claims: GroupClaims,
        _ kinds: MessageKinds
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.claims = claims
        self.kinds = kinds
        finder = MessageFinder(environment, storage)
    }

    /// Fields: those of `MessageFinder`, and `group`: this group only. The body is JSON, whose members are in
    /// `MessageStatusInquiry.body`.
    func status(_ request: borrowing Request) throws(RemotingDecodeError) {
        let wanted = request.extFields.string("group")
        let asker = request.asker
        try finder.find(request) { [self] found, _ in inquire(found, wanted, asker) }
    }

    private func inquire(_ message: StoredMessage, _ wanted: String?, _ asker: Asker) {
        let inquiry = MessageStatusInquiry(environment, tables, storage, claims, kinds.schedule, message)
        environment.slices.work(for: asker.client) {
            inquiry.advance()
        } then: { [self] in
            lookAtGroups(inquiry, wanted, asker)
        }
    }

    private func lookAtGroups(_ inquiry: MessageStatusInquiry, _ wanted: String?, _ asker: Asker) {
        if let wanted {
            inquiry.begin([wanted] as Set)
            return lookOn(inquiry, asker)
        }
        let topic = inquiry.topicOfGroups
        asker.client.connection.awaitsAnswer = true
        tables.consumers.groups(subscribedTo: topic, in: environment.slices) { [self] online in
            asker.client.connection.awaitsAnswer = false
            inquiry.begin(Set(online).union(tables.offsets.groups(of: topic)))
            lookOn(inquiry, asker)
        }
    }

    private func lookOn(_ inquiry: MessageStatusInquiry, _ asker: Asker) {
        environment.slices.work(for: asker.client) {
            inquiry.advance()
        } then: { [self] in
            guard inquiry.rows.contains(where: { $0.mode == .pop }), !inquiry.waits else {
                return asker.answer(.success, body: inquiry.body(nil))
            }
            let message = inquiry.message
            asker.client.connection.awaitsAnswer = true
            let groups = inquiry.rows.filter { $0.mode == .pop }.map(\.group)
            let isAsked = claims.trail(of: message.topic, groups, message.queueID, message.queueOffset) { trail in
                asker.client.connection.awaitsAnswer = false
                inquiry.add(trail)
                asker.answer(.success, body: inquiry.body(trail))
            }
            if !isAsked {
                asker.client.connection.awaitsAnswer = false
                asker.answer(
                    .systemBusy, remark: "too many clients ask for the trails of messages; ask again in a moment")
            }
        }
    }
}
