extension ConsumerOffsetManager {
    /// The same for entries of the tables of topics and groups. Allocates nothing when the group has committed there
    /// before.
    func commit(topic: TopicEntry, group: SubscriptionGroupEntry, queueID: Int32, offset: Int64) {
        let known = topic.nameBytes.withUnsafeBytes { topic in group.nameBytes.withUnsafeBytes { find(topic, $0) } }
        commit(known ?? make(topic.topicName, group.groupName), queueID, offset)
    }
}
