import Claims
import MessageStore

/// Groups without claims in a message's queue: which have consumed it by their offsets, and whether others may still
/// get it. Offsets may move until the edit is carried out, as they may after it: what clients that pull have fetched,
/// brokers do not know. Confined to the broker's event loop.
struct PullingAudience {
    /// Of a message that no group can have had.
    static let empty = PullingAudience()

    var consumed: [String] = []
    var hasOthers = false

    /// Looks at the groups in slices.
    struct Inquiry {
        /// Groups looked at in one slice.
        static let groupsPerSlice = 1024

        private(set) var found = PullingAudience()
        private let tables: BrokerTables
        private let claims: GroupClaims
        private let message: StoredMessage
        private var known: ArraySlice<ConsumerOffsetManager.Table>
        private var online: ArraySlice<String>

        /// - Parameter online: groups whose members have subscribed to the topic.
        init(_ tables: BrokerTables, _ claims: GroupClaims, _ message: StoredMessage, online: [String]) {
            self.tables = tables
            self.claims = claims
            self.message = message
            known = tables.offsets.tables(of: message.topic)[...]
            self.online = online[...]
        }

        /// One slice; true when there is more to do.
        mutating func advance() -> Bool {
            for table in known.prefix(Self.groupsPerSlice) where !isPopping(table.group) {
                guard !SubscriptionGroupManager.isOfTools(table.group) else { continue }
                if let offset = table.offsets[message.queueID], offset > message.queueOffset {
                    found.consumed.append(table.group)
                } else {
                    found.hasOthers = true
                }
            }
            known = known.dropFirst(Self.groupsPerSlice)
            guard known.isEmpty else { return true }
            // Members of a group that has committed nothing here get the message, too.
            for group in online.prefix(Self.groupsPerSlice) where !found.hasOthers {
                let offset = tables.offsets.offset(topic: message.topic, group: group, queueID: message.queueID)
                if offset == nil, !isPopping(group) { found.hasOthers = true }
            }
            online = found.hasOthers ? [] : online.dropFirst(Self.groupsPerSlice)
            return !online.isEmpty
        }

        private func isPopping(_ group: String) -> Bool {
            claims.store.table(group: group, topic: message.topic, queueID: message.queueID) != nil
        }
    }
}
