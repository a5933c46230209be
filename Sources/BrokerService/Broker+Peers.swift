import FastJSON
import Logging
import MessageModel
package import NIOCore
import RemotingProtocol
package import WorkerProtocol

/// The platform's other brokers, and leaving.
extension Broker {
    /// What another broker of this platform should have, as far as this one knows: sent whenever one comes.
    package var topicsToShare: [AutoCreatedTopic] {
        guard !configuration.isSlave else { return [] }
        return tables.autoCreated.names.sorted().compactMap { topics[$0].map { AutoCreatedTopic($0.config) } }
    }

    /// Another broker of this platform has made it. A slave takes its master's topics and no others; a topic that is
    /// here already stays as it is.
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
            return logger.error(
                """
                a topic created at another broker of this platform is not created here, its messages do not spread to \
                this broker: \(error)
                """
            )
        }
        tables.autoCreated.insert(topic.name)
        logger.info(
            "topic \(topic.name) created with \(topic.writeQueues) queues as at another broker of this platform")
        scheduleTick()
    }

    /// This broker cannot go on: senders are refused with a reason from now on. Name servers are notified, those that
    /// answer within a second.
    package func withdraw(because reason: String) -> EventLoopFuture<Void> {
        storage.admission.withdraw(because: reason)
        storage.admission.isDraining = true
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
