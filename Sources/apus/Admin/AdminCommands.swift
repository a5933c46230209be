import ArgumentParser
import Supervision

/// Every command of RocketMQ's `mqadmin` that Apus has, by its topic.
enum AdminCommands {
    static let all: [any AsyncParsableCommand.Type] = [
        ClusterList.self, ClusterRT.self,
        TopicListCommand.self, TopicRouteCommand.self, TopicStatus.self, TopicClusterList.self, UpdateTopic.self,
        TopicModeCommand.self, UpdateTopicPerm.self, DeleteTopic.self, UpdateOrderConf.self, AllocateMQ.self,
        UpdateSubGroup.self, DeleteSubGroup.self, SetConsumeMode.self, GetConsumerConfig.self, ConsumerProgress.self,
        ConsumerConnection.self, ConsumerStatus.self, ProducerConnection.self, ProducerCommand.self,
        ResetOffsetByTime.self, SkipAccumulatedMessage.self, CloneGroupOffset.self,
        QueryMsgByID.self, QueryMsgByKey.self, QueryMsgByUniqueKey.self, QueryMsgByOffset.self,
        QueryMsgTraceByID.self, PrintMsg.self, PrintMsgByQueue.self, ConsumeMessage.self, SendMessage.self,
        CheckMsgSendRT.self, SendMsgStatus.self,
        BrokerStatus.self, BrokerConsumeStats.self, StatsAll.self, GetBrokerConfig.self, UpdateBrokerConfig.self,
        CleanExpiredCQ.self, CleanUnusedTopic.self, DeleteExpiredCommitLog.self, QueryCq.self,
        GetNamesrvConfig.self, UpdateNamesrvConfig.self, WipeWritePerm.self, AddWritePerm.self, UpdateKvConfig.self,
        DeleteKvConfig.self,
    ]

    static let discussion = """
        The commands, options and columns are those of RocketMQ's mqadmin 4.9.8, setConsumeMode is one of \
        5.x; they work against RocketMQ's servers, too. Commands for ACLs, exports and endless monitoring are not \
        here: RocketMQ's own tool has them. A command that fails says why on standard error and ends with 1.
        """

    /// RocketMQ's tool takes command names in any case, and long options after one dash.
    static func normalized(_ arguments: [String]) -> [String] {
        var arguments = arguments
        let position = arguments.first == "help" ? 1 : 0
        if position < arguments.count,
            let command = all.first(where: {
                $0.configuration.commandName?.lowercased() == arguments[position].lowercased()
            }), let name = command.configuration.commandName
        {
            arguments[position] = name
        }
        return arguments.enumerated().map { index, argument in
            let isLong = index > position && argument.hasPrefix("-") && !argument.hasPrefix("--")
            return isLong && longNames.contains(String(argument.dropFirst())) ? "-\(argument)" : argument
        }
    }

    private static let longNames: Set<String> = [
        "namesrvAddr", "clusterName", "brokerAddr", "brokerName", "topic", "topicName", "groupName", "consumerGroup",
        "group", "popShareQueueNum",
    ]
}

/// `apus admin COMMAND`
struct AdminCommandGroup: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "admin", abstract: "RocketMQ's mqadmin: topics, groups, offsets, messages, settings.",
        discussion: AdminCommands.discussion, subcommands: AdminCommands.all)
}

/// The same by RocketMQ's name.
struct MQAdmin: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mqadmin", abstract: "Manage topics, groups, offsets, messages and settings.",
        discussion: AdminCommands.discussion, version: ApusRelease.version, subcommands: AdminCommands.all)
}
