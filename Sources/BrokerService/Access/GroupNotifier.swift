import Logging
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport

/// Notifies members that their group has changed, and operators who left and what was given up. Confined to the
/// broker's event loop.
final class GroupNotifier: ConsumerGroupObserver {
    /// Members notified in one slice: each is a write and a send of its own.
    static let noticesPerSlice = 256
    /// Bytes written to members in one slice, or one frame that is larger.
    static let bytesPerSlice = 1 << 20

    private let environment: BrokerEnvironment
    private let admission: Admission
    private var notices = MembershipNotices()
    private(set) var consumerNotices = ConsumerNotices()
    private var task: Scheduled<Void>?

    init(_ environment: BrokerEnvironment, _ admission: Admission) {
        self.environment = environment
        self.admission = admission
    }

    // MARK: - ConsumerGroupObserver

    func changed(_ group: String) {
        // Connections that end with this broker are no change of the group.
        guard !admission.isDraining else { return }
        notices.changed(group)
        environment.scheduleTick()
    }

    func left(_ group: String, _ client: ClientChannelInfo, remaining: Int) {
        // All of them end with this broker.
        guard !admission.isDraining else { return }
        consumerNotices.left(
            group: group, client: client, remaining: remaining, now: environment.now(), environment.logger)
    }

    func disagreed(_ group: ConsumerGroup, _ conflict: SubscriptionConflict) {
        environment.logger.warning(
            """
            consumer group \(group.name) is inconsistent: \(conflict); each is served what it asks for, but only from \
            the queues it is assigned: let all clients of a group subscribe to the same
            """,
            metadata: ["consumerGroup": "\(group.name)"])
    }

    // MARK: - Members

    /// Has the members of a group look anew at what they own: a queue one of them waits for is free.
    func rebalance(_ group: String, _ groups: SubscriptionGroupManager) {
        guard groups[group]?.config.notifyConsumerIDsChangedEnable ?? true else { return }
        notices.changed(group)
        environment.scheduleTick()
    }

    /// Notifies members of groups that have changed, by one notice for all changes of a while.
    func endOfTick(_ consumers: ConsumerManager) {
        guard !notices.isEmpty else { return }
        let isEnabled = environment.configuration.notifyConsumerIdsChangedEnable
        let time = environment.now()
        // Of all groups together: a connection may have left two thousand.
        var mayBeToldNow = Self.noticesPerSlice
        let next = notices.tell(now: time) { group in
            guard isEnabled, let members = consumers[group]?.clients else { return 0 }
            // The same bytes for all: no member answers, so that the number of the request means nothing.
            var notice = RemotingCommand(.notifyConsumerIDsChanged, extFields: ["consumerGroup": group])
            notice.flag = RemotingFrame.onewayFlag
            var frame = ByteBuffer()
            notice.encode(into: &frame)
            tell(members, frame, isLater: mayBeToldNow <= 0)
            mayBeToldNow -= members.count
            return members.count
        }
        task?.cancel()
        task = next.map { next in
            let environment = NIOLoopBound(self.environment, eventLoop: environment.eventLoop)
            return self.environment.eventLoop.scheduleTask(in: .milliseconds(max(1, next - time))) {
                environment.value.scheduleTick()
            }
        }
    }

    /// Members that are sent a frame of so many bytes in one slice.
    static func membersPerSlice(bytes: Int) -> Int { max(1, min(noticesPerSlice, bytesPerSlice / max(1, bytes))) }

    /// Sends members the same frame, in slices.
    /// - Parameter isLater: the first slice is for a later turn, too.
    func tell(_ members: [ClientChannelInfo], _ frame: ByteBuffer, isLater: Bool = false) {
        var left = members[...]
        let count = Self.membersPerSlice(bytes: frame.readableBytes)
        let slice = { () -> Bool in
            for member in left.prefix(count) {
                member.client.connection.write { $0.writeImmutableBuffer(frame) }
            }
            left = left.dropFirst(count)
            return !left.isEmpty
        }
        if isLater || slice() { environment.slices.add(slice) }
    }

    // MARK: - Operators

    /// A message has been stored in a dead-letter topic.
    func deadLetter(in topic: TopicEntry, _ queueID: Int32, _ result: AppendResult, tries: Int32) {
        let group = String(topic.name.dropFirst(TopicName.deadLetterPrefix.count))
        consumerNotices.deadLetter(
            group: group, place: "queue \(queueID) offset \(result.queueOffset)", tries: tries,
            now: environment.now(), environment.logger)
    }

    /// Every few seconds: what was not logged and nothing followed.
    func logOmitted() { consumerNotices.sayOmitted(environment.logger) }
}
