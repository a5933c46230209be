import MessageModel
import RemotingProtocol
import StoreFormat

/// What APUS_EDIT_MESSAGE asks for, apart from the message.
struct EditRequest {
    enum Operation: String, CaseIterable {
        case edit, cancel, reschedule, retries, resend, delete

        /// How the message's new version names it; nil: it gets none.
        var action: EditNote.Action? { EditNote.Action(rawValue: rawValue) }

        /// Whether it takes the message out of the queue it is in.
        var deletes: Bool {
            switch self {
            case .edit, .retries, .resend: false
            case .cancel, .reschedule, .delete: true
            }
        }
    }

    var operation: Operation
    /// Who asks: visible characters, 1 to `EditNote.byMax` bytes.
    var by: String
    /// The version the asker has seen; nil: whichever stands.
    var version: Int64?
    /// nil: as they are; empty: none.
    var tags: String?
    var keys: String?
    /// Set to these values.
    var properties: [(name: String, value: String)]
    /// nil: as it is.
    var body: [UInt8]?
    /// Milliseconds since 1970.
    var deliverAt: Int64?
    /// Deliveries that count as made.
    var retries: Int32?

    enum Parsed {
        case request(EditRequest)
        case refused(String)
    }

    /// - Throws: a field is missing or no number.
    static func parse(_ request: borrowing Request) throws(RemotingDecodeError) -> Parsed {
        let fields = request.extFields
        let word = try fields.required("operation")
        guard let operation = Operation(rawValue: word) else {
            let all = Operation.allCases.map(\.rawValue).joined(separator: ", ")
            return .refused("there is no operation '\(word)': one of \(all)")
        }
        let by = try fields.required("by")
        guard !by.isEmpty, by.utf8.count <= EditNote.byMax, isVisible(by) else {
            return .refused("by names who asks, in 1 to \(EditNote.byMax) bytes of visible characters")
        }
        var parsed = EditRequest(
            operation: operation, by: by, version: try fields.int64("version"), tags: fields.string("tags"),
            keys: fields.string("keys"), properties: [], deliverAt: try fields.int64("deliverAt"),
            retries: try fields.int32("retries"))
        if fields.bool("hasBody") == true { parsed.body = Array(request.body) }
        guard parsed.body != nil || request.body.isEmpty else {
            return .refused("there is a body, and hasBody does not say that it is the message's new one")
        }
        for (name, text) in [("tags", parsed.tags), ("keys", parsed.keys)] where text.map(isSeparated) == true {
            return .refused("\(name) has a character that separates properties (code 1 or 2)")
        }
        let properties = fields.string("properties")
        let bytes = [parsed.tags, parsed.keys, properties].reduce(0) { $0 + ($1?.utf8.count ?? 0) }
        guard bytes <= Int(Int16.max) else {
            return .refused("tags, keys and properties have \(bytes) bytes, a message has room for \(Int16.max)")
        }
        if let text = properties {
            for piece in text.utf8.split(separator: MessageProperties.propertySeparator) {
                let parts = piece.split(
                    separator: MessageProperties.nameValueSeparator, maxSplits: 1, omittingEmptySubsequences: false)
                guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty,
                    !parts[1].contains(MessageProperties.nameValueSeparator)
                else { return .refused("properties are name, code 1, value, code 2, …; one of them is not") }
                let name = String(decoding: parts[0], as: UTF8.self)
                guard !isBrokersOwn(name) else {
                    return .refused("property \(name) cannot be changed: brokers and clients give it a meaning")
                }
                parsed.properties.append((name, String(decoding: parts[1], as: UTF8.self)))
            }
        }
        return parsed.problem.map { .refused($0) } ?? .request(parsed)
    }

    private var changesContent: Bool { body != nil || tags != nil || keys != nil || !properties.isEmpty }

    /// What is asked for and makes no sense; nothing of a request is left aside in silence.
    private var problem: String? {
        switch operation {
        case .edit:
            if !changesContent {
                return "nothing is to be changed: give a body (hasBody), tags, keys or properties"
            }
        case .reschedule:
            if deliverAt == nil { return "deliverAt is missing: milliseconds since 1970" }
        case .retries:
            guard let retries, retries >= 0 else {
                return "retries is missing or negative: how many deliveries count as made"
            }
            if changesContent { return "retries changes no content: edit the message as well" }
        case .cancel, .delete:
            if changesContent { return "what is deleted has no content to be changed" }
        case .resend: break
        }
        if deliverAt != nil, operation != .reschedule { return "deliverAt belongs to reschedule" }
        if retries != nil, operation != .retries { return "retries belongs to the operation of that name" }
        return nil
    }

    private static func isSeparated(_ text: String) -> Bool { text.utf8.contains { $0 == 1 || $0 == 2 } }

    private static func isVisible(_ text: String) -> Bool {
        text.unicodeScalars.allSatisfy { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
            default: true
            }
        }
    }

    /// What a message is found, delayed, retried or accounted by. Tags and keys have fields of their own.
    private static let names: Set<String> = Set(
        [
            PropertyName.keys, PropertyName.tags, PropertyName.uniqueKey, PropertyName.delayLevel,
            PropertyName.waitStoreMsgOK, PropertyName.realTopic, PropertyName.realQueueID, PropertyName.retryTopic,
            PropertyName.originMessageID, PropertyName.isPrepared, PropertyName.producerGroup, PropertyName.cluster,
            PropertyName.region, PropertyName.traceSwitch, PropertyName.recordCRC, PropertyName.reconsumeTime,
            PropertyName.maxReconsumeTimes, PropertyName.consumeStartTime, PropertyName.popHandle,
            PropertyName.firstPopTime, PropertyName.innerMultiDispatch, PropertyName.innerMultiQueueOffset,
            PropertyName.innerNum, PropertyName.shardingKey, PropertyName.checkImmunityTime,
        ].map { "\($0)" } + HalfMessage.brokersOwn.map { "\($0)" })
    private static let prefixes = [
        PropertyName.timerPrefix, PropertyName.apusPrefix, PropertyName.deadLetterOriginPrefix,
    ].map { "\($0)" }

    private static func isBrokersOwn(_ name: String) -> Bool {
        names.contains(name) || prefixes.contains { name.hasPrefix($0) }
    }

    /// The properties of the version that is made.
    func apply(to properties: inout PropertyList) {
        if let tags { properties[PropertyName.tags] = tags.isEmpty ? nil : tags }
        if let keys { properties[PropertyName.keys] = keys.isEmpty ? nil : keys }
        for (name, value) in self.properties { properties[name] = value }
    }
}
