/// What carries requests out: one processor for each family, made once by `Broker`. Confined to its event loop.
final class Processors {
    let send: SendMessageProcessor
    let reply: ReplyMessageProcessor
    let recall: RecallMessageProcessor
    let endTransaction: EndTransactionProcessor
    let pull: PullMessageProcessor
    let pop: PopMessageProcessor
    let popped: PoppedMessageProcessor
    let popQuestions: PopQuestionProcessor
    let claimFiles: ClaimFilesProcessor
    let assignments: QueryAssignmentProcessor
    let sendBack: SendBackProcessor
    let clients: ClientManageProcessor
    let queues: QueueProcessor
    let queries: QueryMessageProcessor
    let admin: AdminBrokerProcessor
    let consumeStats: ConsumeStatsProcessor
    let relay: ClientRelayProcessor
    let status: MessageStatusProcessor
    let edits: EditMessageProcessor
    let answers: TableAnswers
    let sender: RecordSender

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, hold: PullRequestHold,
        filters: FilterLink, claims: GroupClaims, waiters: PopWaiters,
        kinds: MessageKinds, keeper: TableKeeper, answers: TableAnswers, settings: BrokerSettings,
        registration: NameserverRegistration, replica: ReplicaStatus, notifier: GroupNotifier
    ) {
        self.answers = answers
        send = SendMessageProcessor(environment, tables, storage, keeper, kinds, notifier)
        reply = ReplyMessageProcessor(environment, tables, storage, send)
        recall = RecallMessageProcessor(environment, tables, storage, kinds.timers)
        endTransaction = EndTransactionProcessor(environment, storage, kinds.transactions)
        let reader = MessageReader(environment, tables, storage, hold, filters)
        sender = RecordSender(environment, storage.store)
        pull = PullMessageProcessor(environment, tables, storage, filters, reader, sender)
        let retries = PopRetryTopics(tables)
        let deadLetters = PopDeadLetters(environment, tables, storage, keeper, notifier, claims)
        pop = PopMessageProcessor(
            environment, tables, storage, filters, reader, sender, claims, waiters, retries, deadLetters,
            claims.leases)
        popped = PoppedMessageProcessor(environment, tables, storage, claims, waiters, deadLetters)
        popQuestions = PopQuestionProcessor(environment, tables, storage, sender, claims, waiters, retries)
        claimFiles = ClaimFilesProcessor(claims)
        assignments = QueryAssignmentProcessor(environment, tables, keeper, registration)
        sendBack = SendBackProcessor(environment, tables, storage, keeper, notifier)
        clients = ClientManageProcessor(
            environment, tables, storage, hold, filters, reader, kinds.transactions, notifier, claims.leases)
        queues = QueueProcessor(tables, storage, claims)
        queries = QueryMessageProcessor(environment, storage, sender)
        let runtime = RuntimeInformation(
            environment: environment, tables: tables, storage: storage, kinds: kinds, settings: settings,
            notifier: notifier, leases: claims.leases)
        admin = AdminBrokerProcessor(
            environment, tables, storage, hold, claims, waiters, keeper, answers, settings, registration, runtime,
            replica, kinds)
        consumeStats = ConsumeStatsProcessor(environment, tables, storage, answers)
        status = MessageStatusProcessor(environment, tables, storage, claims, kinds)
        edits = EditMessageProcessor(
            environment, tables, storage, claims,
            MessageEditor(environment, tables, storage, claims, kinds, deadLetters))
        relay = ClientRelayProcessor(environment, tables, storage, answers, notifier, claims)
    }
}
