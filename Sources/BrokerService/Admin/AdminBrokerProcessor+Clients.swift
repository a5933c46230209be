import FastJSON
import RemotingProtocol
import RemotingTransport

/// The connected clients: GET_CONSUMER_CONNECTION_LIST (203), GET_PRODUCER_CONNECTION_LIST (204), GET_ALL_PRODUCER_INFO
/// (328). There may be ten thousand of them: they are noted in slices, and another thread makes the text.
extension AdminBrokerProcessor {
    /// Clients noted in one slice.
    private static let clientsPerSlice = 256

    /// One client as it is shown; any thread.
    private struct ClientRow: Sendable {
        let group: String
        let clientID: String
        let address: String
        let language: String
        let version: Int32
        /// Milliseconds since 1970.
        let lastUpdateMilliseconds: Int64

        init(_ info: ClientChannelInfo, of group: String) {
            self.group = group
            clientID = info.clientID
            address = info.client.address
            language = "\(info.language.name)"
            version = info.version
            lastUpdateMilliseconds = info.lastUpdateMilliseconds
        }

        var connection: JSONValue {
            .fields([
                ("clientAddr", .string(address)), ("clientId", .string(clientID)), ("language", .string(language)),
                ("version", .integer(version)),
            ])
        }

        var producer: JSONValue {
            .fields([
                ("clientId", .string(clientID)), ("language", .string(language)),
                ("lastUpdateTimestamp", .integer(lastUpdateMilliseconds)), ("remoteIP", .string("/" + address)),
                ("version", .integer(version)),
            ])
        }
    }

    /// Bytes of a client in an answer's text, besides its identifier, at least.
    private static let bytesOfClient = 64

    /// Notes the clients of groups in slices; answers when they are too many.
    private func note(
        _ groups: [(group: String, clients: [ClientChannelInfo])], for asker: Asker,
        then: @escaping ([ClientRow], RowBounds.Rows) -> Void
    ) {
        let (client, bounds) = (asker.client, answers.rows)
        guard let noted = bounds.begin(isGone: { client.connection.isClosed }) else {
            return asker.answer(.systemBusy, remark: RowBounds.busy)
        }
        var refusal: (ResponseCode, String)?
        var left = groups[...]
        var clients: ArraySlice<ClientChannelInfo> = []
        var group = ""
        var rows: [ClientRow] = []
        environment.slices.work(for: client) {
            for _ in 0..<Self.clientsPerSlice {
                if let info = clients.popFirst() {
                    rows.append(ClientRow(info, of: group))
                    noted.note(bytes: info.clientID.utf8.count + Self.bytesOfClient)
                } else if let next = left.popFirst() {
                    (group, clients) = (next.group, next.clients[...])
                } else {
                    return false
                }
            }
            refusal = bounds.refusal(of: noted)
            return refusal == nil
        } then: {
            let found = rows
            rows = []
            guard let (code, remark) = refusal else { return then(found, noted) }
            bounds.end(noted)
            asker.answer(code, remark: remark)
        }
    }

    func consumerConnections(_ request: borrowing Request) throws(RemotingDecodeError) {
        let name = try request.extFields.required("consumerGroup")
        guard let group = tables.consumers[name] else {
            return request.answer(.consumerNotOnline, remark: "the consumer group[\(name)] not online")
        }
        let asker = request.asker
        note([(name, group.clients)], for: asker) { [self] rows, noted in
            let subscriptions = group.subscriptions.values.map(\.data)
            let (from, type, model) = (group.consumeFromWhere, group.consumeType, group.messageModel)
            answers.answer(entries: rows.count + subscriptions.count, asker, of: noted) {
                .fields([
                    ("connectionSet", .array(rows.map(\.connection))), ("consumeFromWhere", .string(from)),
                    ("consumeType", .string(type)), ("messageModel", .string(model)),
                    ("subscriptionTable", .fields(subscriptions.map { ($0.topic, Optional($0.json)) })),
                ])
            }
        }
    }

    func producerConnections(_ request: borrowing Request) throws(RemotingDecodeError) {
        let name = try request.extFields.required("producerGroup")
        guard let clients = tables.producers.clients(of: name) else {
            return request.answer(.systemError, remark: "the producer group[\(name)] not exist")
        }
        let asker = request.asker
        note([(name, clients)], for: asker) { [self] rows, noted in
            answers.answer(entries: rows.count, asker, of: noted) {
                .fields([("connectionSet", .array(rows.map(\.connection)))])
            }
        }
    }

    func producerInfo(_ request: borrowing Request) {
        let asker = request.asker
        note(tables.producers.all, for: asker) { [self] rows, noted in
            answers.answer(entries: rows.count, asker, of: noted) {
                let groups = Dictionary(grouping: rows, by: \.group).sorted { $0.key < $1.key }
                return .fields([
                    ("data", .fields(groups.map { ($0.key, Optional(JSONValue.array($0.value.map(\.producer)))) }))
                ])
            }
        }
    }
}
