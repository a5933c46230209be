import RemotingProtocol

extension RequestTable {
    /// Messages go out to consumers that have them for a time (POP), and what those report of them.
    static var popRows: [RequestRow] {
        [
            RequestRow(
                .popMessage, "POP_MESSAGE", .subscribe, [.group("consumerGroup"), .topic("topic")], refused: .pop,
                hasExpression: true,
                "hands messages of any queue to one client for some time, held until there are any (5.x)"
            ) { $0.pop.process },
            RequestRow(
                .ackMessage, "ACK_MESSAGE", .subscribe, [.group("consumerGroup"), .topic("topic")], refused: .claim,
                "a popped message is consumed"
            ) { $0.popped.acknowledge },
            RequestRow(
                .batchAckMessage, "BATCH_ACK_MESSAGE", .subscribe, [.body], refused: .claim,
                "several popped messages are consumed"
            ) { $0.popped.acknowledgeBatch },
            RequestRow(
                .changeMessageInvisibleTime, "CHANGE_MESSAGE_INVISIBLETIME", .subscribe,
                [.group("consumerGroup"), .topic("topic")], refused: .claim,
                "a popped message comes again at another time"
            ) { $0.popped.changeInvisibleTime },
            RequestRow(
                .peekMessage, "PEEK_MESSAGE", .subscribe, [.group("consumerGroup"), .topic("topic")],
                "the next messages a pop would bring"
            ) { $0.popQuestions.peek },
            RequestRow(
                .notification, "NOTIFICATION", .subscribe, [.group("consumerGroup"), .topic("topic")],
                "whether there is something to pop, held until there is"
            ) { $0.popQuestions.notify },
            RequestRow(
                .pollingInfo, "POLLING_INFO", .subscribe, [.group("consumerGroup"), .topic("topic")],
                "how many pops wait for a queue"
            ) { $0.popQuestions.pollingInfo },
            RequestRow(
                .queryAssignment, "QUERY_ASSIGNMENT", .subscribe, [.body],
                "the queues a member of a group is to read, and whether it pulls or pops"
            ) { $0.assignments.assign },
            RequestRow(
                .setMessageRequestMode, "SET_MESSAGE_REQUEST_MODE", .subscribe, [.body], refused: .tables,
                "has a group pull or pop a topic"
            ) { $0.assignments.setMode },
            RequestRow(
                .getAllMessageRequestMode, "GET_ALL_MESSAGE_REQUEST_MODE", .list, [.allGroups],
                "which groups pop which topics, for slaves (5.x)"
            ) { processors in { processors.answers.answer(with: .messageRequestModes, $0.asker) } },
            RequestRow(
                .getClaims, "APUS_GET_CLAIMS", .get, [.cluster],
                "a part of the files that say who has which message, for slaves (Apus's own)"
            ) { $0.claimFiles.process },
        ]
    }
}
