/// Every message between processes of one platform. All of them come from one build, so there is one version and no
/// negotiation: a message of another version is refused.
///
/// On the control channel (descriptor 3 of a worker, SOCK_SEQPACKET) one message is one datagram of at most
/// `controlBytesMax`; descriptors travel with it by SCM_RIGHTS. On a peer link (SOCK_STREAM) each message follows its
/// length (4 bytes, big-endian, at most `peerBytesMax`). Layout: `WorkerMessage+Codec.swift`.
package enum WorkerMessage: Hashable, Sendable {
    /// Of the layout. Raised with any change of it.
    package static let version: UInt8 = 7
    /// Bytes of a message on a control channel at most.
    package static let controlBytesMax = 64 * 1024
    /// Bytes of a message on a peer link at most.
    package static let peerBytesMax = 16 * 1024 * 1024
    /// The supervisor answers with the reports of many workers in one message.
    package static let reportBytesMax = 12 * 1024
    /// Bytes of an entry of `filterBatch`.
    package static let filterEntryBytes = 20
    /// Entries of one `filterBatch` at most.
    package static let filterBatchMax = 4096
    /// Bytes of an expression that is compiled at most.
    package static let filterExpressionMax = 64 * 1024
    /// Bytes of the name of a type of expressions at most.
    package static let filterTypeMax = 64
    /// Tags codes that an expression comes down to at most.
    package static let filterTagsCodesMax = 4096
    /// Types that one worker serves, or one expression calls, at most.
    package static let filterTypesMax = 4096

    // MARK: - Both ways

    /// Clients' connections are attached, as many as a message carries; several of these may follow one another. From a
    /// worker that drains: they go to its next process. To a worker before `setupDone`: they come from the process
    /// before.
    case connections

    // MARK: - Supervisor → worker

    /// First message. `descriptors` names the attached descriptors in their order: `listener:NAME`, `segment:NAME`,
    /// `event:NAME`.
    case setup(kind: WorkerKind, index: Int, settings: Settings, descriptors: [String])
    /// One stream socket to another worker is attached. After the other one's restart a new one replaces the old.
    case peer(kind: WorkerKind, index: Int)
    /// The peers known at the start have been introduced: open for business.
    case setupDone
    /// Answer `pong(n)` from the event loop.
    case ping(UInt64)
    /// Take no new work, finish what is accepted, flush, send `drained` and exit.
    case drain(DrainReason)
    case reload(settings: Settings)
    /// More of what `setup` brought, for a worker that comes to the platform later: comes before the introduction to
    /// it.
    case extend(descriptors: [String])

    /// To filter workers: what is held against a plugin is forgotten. `name` is its file's name, or its own.
    case pardon(name: String)

    // MARK: - Worker → supervisor

    /// Serving. `detail` is for people, e.g. the addresses.
    case ready(detail: String)
    /// `status`: one line for people. `trouble`: what keeps it from doing all its work, with the remedy; empty when it
    /// serves.
    case pong(UInt64, status: String, trouble: String)
    /// Cannot serve, and why; the worker exits after it.
    case failed(reason: String, cause: FailureCause)
    case drained
    /// A fresh process is to take over, because of what happened outside: no failure.
    case renew(reason: String)
    /// What ended the process before this one is known and dealt with: the next start need not be throttled.
    case explained(cause: String)
    /// What the worker has to report in full, as one line of JSON of at most `reportBytesMax`; the last one counts.
    case report(json: String)

    // MARK: - Broker-store → broker-store

    /// A client's first message made this topic: the platform's other brokers make it, too.
    case topicCreated(AutoCreatedTopic)

    // MARK: - Broker-store → filter

    case filterCompile(request: UInt64, type: String, expression: String)
    case filterRelease(program: UInt32)
    /// `entries`: consume queue entries as they are stored, `filterEntryBytes` each: offset in the commit log 8, bytes
    /// of the record 4, tags code 8, big-endian.
    case filterBatch(request: UInt64, program: UInt32, entries: [UInt8])

    // MARK: - Filter → broker-store

    case filterCompiled(request: UInt64, result: FilterCompilation)
    /// Bit i (of byte i / 8, lowest bit first) is set where entry i matches. Fewer than (entries + 7) / 8 bytes: the
    /// entries after those were not looked at, for lack of time; ask again from there.
    case filterMatched(request: UInt64, bitmap: [UInt8])
    /// Not evaluated: nothing may be delivered or skipped on account of it. `unknownProgram`: this worker is not the
    /// one that compiled the program; compile again. Else ask again later.
    case filterFailed(request: UInt64, unknownProgram: Bool, reason: String)
    /// The expression types this worker serves from now on. Of several workers that serve one, those with the lowest
    /// rank are asked.
    case filterServes(rank: UInt8, types: [String])

    // MARK: - Replication → broker-store (slave)

    /// Bytes of the master's commit log from physical offset `at` on.
    case replicaBytes(at: Int64, bytes: [UInt8])
    case replicaMetadata(kind: ReplicaMetadataKind, json: [UInt8])
    case replicaState(connected: Bool, master: String)
    /// The answer to `claimsWanted`.
    case claims(request: UInt64, ClaimsAnswer)

    // MARK: - Replication → broker-store (master)

    /// The answer to `slavesWanted`.
    case slaves(request: UInt64, [SlaveReport])

    // MARK: - Broker-store → replication

    /// The next physical offset the slave's log wants; first at the start, then after every append.
    case replicaPosition(next: Int64)
    case replicaRefused(at: Int64, reason: String)
    case brokerRole(BrokerRole, masterAddress: String)
    /// Which slaves follow this master?
    case slavesWanted(request: UInt64)
    /// Of a slave: what the master is to be asked of its journal of claims (`Claims.FeedQuestion`).
    case claimsWanted(request: UInt64, question: [UInt8])
}

/// What came of a slave's question about its master's claims.
package enum ClaimsAnswer: Hashable, Sendable {
    /// `Claims.FeedAnswer`.
    case answered([UInt8])
    /// The master does not know the question: it is RocketMQ's, or an older Apus.
    case unknown
    /// There is no answer, for now.
    case failed(reason: String)
}

/// What follows a worker's drain, and so what it reports to its clients.
package enum DrainReason: UInt8, CaseIterable, Sendable {
    /// The same worker, at once: no client needs to go elsewhere.
    case restart = 1
    /// Nothing, while the others of the platform go on.
    case leave = 2
    /// The whole platform stops, for good or to be started again: that only systemd knows.
    case stop = 3
}

/// What a worker's end is to be taken for.
package enum FailureCause: UInt8, CaseIterable, Sendable {
    case own = 1
    /// Its disk is away: no crash. It is looked for again until it is back.
    case disk = 2
    /// A setting it was given cannot be used: starting it again does not help.
    case settings = 3
}

/// A topic as `topics.json` has it, without its attributes.
package struct AutoCreatedTopic: Hashable, Sendable {
    /// The topic's name.
    package var name: String
    /// `readQueueNums`.
    package var readQueues: Int32
    /// `writeQueueNums`.
    package var writeQueues: Int32
    /// `perm`: 4 read, 2 write.
    package var permission: Int32
    /// `topicSysFlag`.
    package var sysFlag: Int32
    /// `SINGLE_TAG` or `MULTI_TAG`.
    package var filterType: String

    package init(
        name: String, readQueues: Int32, writeQueues: Int32, permission: Int32, sysFlag: Int32, filterType: String
    ) {
        self.name = name
        self.readQueues = readQueues
        self.writeQueues = writeQueues
        self.permission = permission
        self.sysFlag = sysFlag
        self.filterType = filterType
    }
}

/// A plugin's answer to a subscription expression.
package enum FilterCompilation: Hashable, Sendable {
    /// Every message matches; no filtering.
    case everything
    /// Comparing tags codes decides; the filter worker is not needed any more.
    case tagsCodes([Int64])
    /// `prefilter`: messages with other tags codes cannot match and need not be asked about; nil: any may.
    case program(UInt32, prefilter: [Int64]? = nil)
    /// `position`: offset into the expression's UTF-8, or -1.
    case refused(position: Int32, reason: String)
    case unavailable(reason: String)
    /// It calls plugins of these types, which this filter worker does not serve: a worker that serves all of them is to
    /// be asked. `reason`: for the client, when there is none.
    case elsewhere(types: [String], reason: String)
}

/// The configuration a slave copies from its master.
package enum ReplicaMetadataKind: UInt8, CaseIterable, Sendable {
    case topics = 1
    case consumerOffset = 2
    case delayOffset = 3
    case subscriptionGroup = 4
    /// Which groups pop which topics.
    case messageRequestMode = 5
}

/// `BrokerRole` of RocketMQ's settings.
package enum BrokerRole: UInt8, CaseIterable, Sendable {
    case asyncMaster = 1
    case syncMaster = 2
    case slave = 3

    /// RocketMQ's value of `brokerRole`.
    package var name: String {
        switch self {
        case .asyncMaster: "ASYNC_MASTER"
        case .syncMaster: "SYNC_MASTER"
        case .slave: "SLAVE"
        }
    }

    /// RocketMQ's spelling in any case; nil for anything else.
    package init?(name: String) {
        guard let role = BrokerRole.allCases.first(where: { $0.name == name.uppercased() }) else { return nil }
        self = role
    }
}
