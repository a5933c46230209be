import RemotingProtocol
import WorkerProtocol

/// What the broker knows of topics, groups and clients. Made once by `Broker`; confined to its event loop.
final class BrokerTables {
    let environment: BrokerEnvironment
    let topics: TopicConfigManager
    let groups: SubscriptionGroupManager
    let offsets = ConsumerOffsetManager()
    let consumers: ConsumerManager
    let requestModes = MessageRequestModes()
    let producers = ProducerManager()
    let locks: RebalanceLockManager
    /// Bounds on what is made because a client named it, by its address.
    let creations: CreationRates
    /// Topics clients' messages have made here or at another broker of this platform: those all of its brokers have.
    let autoCreated = AutoCreatedTopics()

    /// - Throws: a setting names a topic that cannot be one.
    init(_ environment: BrokerEnvironment, _ observer: any ConsumerGroupObserver) throws(BrokerError) {
        self.environment = environment
        let configuration = environment.configuration
        topics = try TopicConfigManager(configuration, now: environment.now)
        creations = CreationRates(now: environment.now)
        groups = SubscriptionGroupManager(configuration, rates: creations, now: environment.now)
        consumers = ConsumerManager(observer)
        locks = RebalanceLockManager(maxLiveMilliseconds: configuration.rebalanceLockMaxLiveTime)
    }

    /// A client's first message to a topic lands on one broker. RocketMQ leaves the topic there, and all its messages
    /// go to that one ever after. Here the platform's other brokers have it within the same moment.
    func clientMade(_ config: TopicConfig) {
        autoCreated.insert(config.topicName)
        environment.platform.topicCreated(AutoCreatedTopic(config))
    }
}
