import FastJSON
import Logging
import MessageModel
package import NIOCore
import RemotingProtocol
package import WorkerProtocol

/// The names of topics that clients' messages have made, in `config/autoCreatedTopics.json`: a list of texts.
struct AutoCreatedTopics {
    private(set) var names: Set<String> = []
    private(set) var isDirty = false

    mutating func insert(_ name: String) { if names.insert(name).inserted { isDirty = true } }
    mutating func remove(_ name: String) { if names.remove(name) != nil { isDirty = true } }

    var json: JSONValue { .array(names.sorted().map { .string($0) }) }
    mutating func load(_ json: JSONValue) { names = Set((json.array ?? []).compactMap(\.string)) }
    mutating func markWritten() { isDirty = false }
}

/// The platform's other brokers, and leaving.
extension Broker {
    /// A client's first message to a topic lands on one broker. RocketMQ leaves the topic there, and all its messages go to that
    /// one ever after; here the platform's other brokers have it within the same moment.
    func autoCreated(_ config: TopicConfig) {
        autoCreated.insert(config.topicName)
        topicCreated(AutoCreatedTopic(config))
    }

    /// What another broker of this platform should have, as far as this one knows: sent whenever one comes.
    package var topicsToShare: [AutoCreatedTopic] {
        guard !configuration.isSlave else { return [] }
        return autoCreated.names.sorted().compactMap { topics[$0].map { AutoCreatedTopic($0.config) } }
    }

    /// Another broker of this platform has made it. A slave takes its master's topics and no others; a topic that is here already
    /// stays as it is.
    package func create(_ topic: AutoCreatedTopic) {
        guard !configuration.isSlave, configuration.autoCreateTopicEnable, topics[topic.name] == nil else { return }
        var config = TopicConfig(
            topicName: topic.name, readQueueNums: topic.readQueues, writeQueueNums: topic.writeQueues,
            perm: topic.permission)
        config.topicSysFlag = topic.sysFlag
        config.topicFilterType = topic.filterType
        do throws(NameError) {
            try topics.update(config)
        } catch {
            return logger.error("a topic of another broker of this platform was not made: \(error)")
        }
        autoCreated.insert(topic.name)
        logger.info(
            "topic \(topic.name) created with \(topic.writeQueues) queues as at another broker of this platform")
        scheduleTick()
    }

    /// This broker cannot go on: senders are refused with words from now on, and name servers are told, those that answer
    /// within a second.
    package func withdraw(because reason: String) -> EventLoopFuture<Void> {
        admission.withdraw(because: reason)
        isDraining = true
        return registration.end(nil)
    }
}

extension AutoCreatedTopic {
    init(_ config: TopicConfig) {
        self.init(
            name: config.topicName, readQueues: config.readQueueNums, writeQueues: config.writeQueueNums,
            permission: config.perm, sysFlag: config.topicSysFlag, filterType: config.topicFilterType)
    }
}
