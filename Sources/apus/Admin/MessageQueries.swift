import ArgumentParser
import FastJSON
import NIOCore
import RemotingProtocol

/// `-t -i -g -d …`: what the commands that find one message do with it.
protocol MessageQuery: AdminCommand {
    func find(_ session: AdminSession) async throws -> [MessageExt]
}

extension MessageQuery {
    func execute(_ session: AdminSession) async throws {
        let messages = try await find(session)
        guard !messages.isEmpty else { throw CommandFailure("no such message") }
        for message in messages { try await session.show(message) }
    }
}

/// `-g` and `-d`: the consumer that is to consume what was found.
struct DirectConsumer: ParsableArguments {
    @Option(
        name: [.customShort("g"), .customLong("consumerGroup")], parsing: .unconditional,
        help: ArgumentHelp("With -d: have this group's consumer consume it.", valueName: "GROUP"),
        completion: Completions.group)
    var group: String?
    @Option(
        name: [.customShort("d"), .customLong("clientId")], parsing: .unconditional,
        help: ArgumentHelp("That consumer.", valueName: "ID"))
    var client: String?

    func validate() throws {
        guard (group == nil) == (client == nil) else { throw ValidationError("-g and -d go together") }
    }

    /// nil: none was named, and the message is shown.
    var named: (group: String, client: String)? {
        guard let group, let client else { return nil }
        return (group, client)
    }
}

struct QueryMsgById: MessageQuery {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgById", abstract: "Show messages by their ids.",
        discussion: """
            An id is the one a send was answered with: it holds the broker's address and the place in its log. With -t also \
            ids that clients make (UNIQ_KEY).
            """)

    @OptionGroup var server: NameServerOption
    @Option(
        name: [.customShort("i"), .customLong("msgId")], parsing: .unconditional,
        help: ArgumentHelp("Message ids, separated by ','.", valueName: "ID,…"))
    var ids: String
    @Option(
        name: [.customShort("t"), .customLong("topic")], parsing: .unconditional,
        help: ArgumentHelp("Topic of ids that clients made.", valueName: "TOPIC"), completion: Completions.topic)
    var topic: String?
    @OptionGroup var consumer: DirectConsumer
    @Option(
        name: [.customShort("s"), .customLong("sendMessage")], parsing: .unconditional,
        help: "Send it again (true or false).")
    var sendMessage = false

    func find(_ session: AdminSession) async throws -> [MessageExt] {
        var messages: [MessageExt] = []
        for id in ids.split(separator: ",").map(String.init) {
            messages.append(try await session.message(id: id, topic: topic))
        }
        return messages
    }

    func execute(_ session: AdminSession) async throws {
        for message in try await find(session) {
            if let (group, client) = consumer.named {
                try await session.consumeDirectly(message, group, client)
            } else if sendMessage {
                let sent = try await session.send(
                    topic: message.topic, body: message.body,
                    properties: message.properties.filter { !["UNIQ_KEY", "WAIT"].contains($0.key) })
                print("resent msg. originalMsgId=\(message.offsetMessageID) \(sent.javaText)")
            } else {
                try await session.show(message)
            }
        }
    }
}

struct QueryMsgByUniqueKey: MessageQuery {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgByUniqueKey", abstract: "Show a message by the id its client made.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("i"), .customLong("msgId")], parsing: .unconditional,
        help: ArgumentHelp("Message id (UNIQ_KEY).", valueName: "ID"))
    var id: String
    @OptionGroup var consumer: DirectConsumer
    @Flag(name: [.customShort("a"), .customLong("showAll")], help: "All copies, at most 32.")
    var showAll = false

    func find(_ session: AdminSession) async throws -> [MessageExt] {
        let all = try await session.query(topic.name, key: id, isUnique: true, limit: 32)
            .sorted { $0.storeTimestamp < $1.storeTimestamp }
        return showAll ? all : Array(all.prefix(1))
    }

    func execute(_ session: AdminSession) async throws {
        let messages = try await find(session)
        guard let first = messages.first else {
            throw CommandFailure("no message with the id '\(id)' in topic '\(topic.name)'")
        }
        if let (group, client) = consumer.named { return try await session.consumeDirectly(first, group, client) }
        for message in messages { try await session.show(message) }
    }
}

struct QueryMsgByKey: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgByKey", abstract: "List the messages with a key, at most 64.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @Option(
        name: [.customShort("k"), .customLong("msgKey")], parsing: .unconditional,
        help: ArgumentHelp("Key.", valueName: "KEY"))
    var key: String

    func execute(_ session: AdminSession) async throws {
        let columns = Columns("%-50s %4s %40s")
        columns.show("#Message ID", "#QID", "#Offset")
        let messages = try await session.query(topic.name, key: key, isUnique: false, limit: 64)
        for message in messages {
            columns.show(message.messageID, String(message.queueID), String(message.queueOffset))
        }
        guard !messages.isEmpty else {
            throw CommandFailure(
                "no message with the key '\(key)' in topic '\(topic.name)' (keys are compared as they are written)")
        }
    }
}

struct QueryMsgByOffset: MessageQuery {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgByOffset", abstract: "Show the message at an offset of a queue.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var broker: String
    @Option(name: [.customShort("i"), .customLong("queueId")], parsing: .unconditional, help: "Queue id.") var queue:
        Int
    @Option(name: [.customShort("o"), .customLong("offset")], parsing: .unconditional, help: "Offset in the queue.")
    var offset: Int64

    func find(_ session: AdminSession) async throws -> [MessageExt] {
        let place = MessageQueue(topic: topic.name, brokerName: broker, queueId: queue)
        let address = try session.address(of: place, in: try await session.route(topic.name))
        let pulled = try await session.pull(place, at: address, offset: offset, count: 1)
        return pulled.messages.filter { $0.queueOffset == offset }
    }
}

struct QueryMsgTraceById: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryMsgTraceById", abstract: "Show what trace messages tell of a message.",
        discussion: "Producers and consumers write them when their message trace is switched on.",
        aliases: ["QueryMsgTraceById"])

    @OptionGroup var server: NameServerOption
    @Option(
        name: [.customShort("i"), .customLong("msgId")], parsing: .unconditional,
        help: ArgumentHelp("Message id.", valueName: "ID"))
    var id: String
    @Option(
        name: [.customShort("t"), .customLong("traceTopic")], parsing: .unconditional,
        help: "Topic of the trace messages.")
    var traceTopic = "RMQ_SYS_TRACE_TOPIC"

    func execute(_ session: AdminSession) async throws {
        let columns = Columns("%-10s %-20s %-20s %-20s %-10s %-10s")
        // A message holds several records, each its fields: Pub 1 time, 3 group, 5 id, 10 cost, 13 (or 12) success;
        // SubBefore 1 time, 3 group, 4 request, 5 id; SubAfter 1 request, 2 id, 3 cost, 4 success, 7 time, 8 group.
        for message in try await session.query(traceTopic, key: id, isUnique: false, limit: 64) {
            for record in String(decoding: message.body, as: UTF8.self).split(separator: "\u{2}") {
                let fields = record.split(separator: "\u{1}", omittingEmptySubsequences: false).map(String.init)
                func field(_ index: Int) -> String { index < fields.count ? fields[index] : "" }
                func time(_ index: Int) -> String { Int64(field(index)).map(AdminTime.seconds) ?? "" }
                switch fields.first {
                case "Pub" where field(5) == id:
                    columns.show("#Type", "#ProducerGroup", "#ClientHost", "#SendTime", "#CostTimes", "#Status")
                    let isGood = fields.count >= 14 ? field(13) == "true" : fields.last == "true"
                    columns.show(
                        "Pub", field(3), message.bornHost.text, time(1), "\(field(10))ms",
                        isGood ? "success" : "failed")
                    print("")
                case "SubAfter" where field(2) == id:
                    columns.show("#Type", "#ConsumerGroup", "#ClientHost", "#ConsumerTime", "#CostTimes", "#Status")
                    columns.show(
                        "Sub", field(8), message.bornHost.text, time(7), "\(field(3))ms",
                        field(4) == "true" ? "success" : "failed")
                    print("")
                default: break
                }
            }
        }
    }
}

extension AdminSession {
    /// A message by the id of its place, or with a topic by the id its client made.
    func message(id: String, topic: String?) async throws -> MessageExt {
        if let topic, let found = try await query(topic, key: id, isUnique: true, limit: 32).first { return found }
        guard let (host, offset) = OffsetMessageID.parse(id) else {
            throw CommandFailure("'\(id)' is no message id: 32 or 56 hexadecimal digits")
        }
        let reply: RemotingCommand
        do {
            reply = try await demand(host.text, .viewMessageByID, ["offset": String(offset)])
        } catch {
            throw CommandFailure(
                "\(error)\nThe id says the message is at \(host.text), offset \(offset)."
                    + (topic == nil ? " If a client made this id, give its topic with -t." : ""))
        }
        guard let message = try MessageExt.decodeAll(reply.body).first else { throw CommandFailure("no such message") }
        return message
    }

    /// What the index of all brokers of a topic has for a key.
    func query(_ topic: String, key: String, isUnique: Bool, limit: Int) async throws -> [MessageExt] {
        var fields = [
            "topic": topic, "key": key, "maxNum": String(limit), "beginTimestamp": "0",
            "endTimestamp": String(Int64.max),
        ]
        fields["_UNIQUE_KEY_QUERY"] = isUnique ? "true" : "false"
        var found: [MessageExt] = []
        for broker in try await route(topic).brokerDatas.sorted(by: { $0.brokerName < $1.brokerName }) {
            guard let address = broker.preferredAddress else { continue }
            let reply = try await ask(address, .queryMessage, fields)
            switch reply.responseCode {
            // The index goes by hashes: others may have the same.
            case .success: found += try MessageExt.decodeAll(reply.body).filter { $0.has(key, isUnique: isUnique) }
            case .queryNotFound: break
            default: throw Refusal(address: address, reply: reply)
            }
        }
        return Array(found.prefix(limit))
    }

    /// Everything about one message, and which groups have consumed it.
    func show(_ message: MessageExt) async throws {
        let columns = Columns("%-20s %s")
        columns.show("OffsetID:", message.offsetMessageID)
        columns.show("Topic:", message.topic)
        columns.show("Tags:", "[\(message.tags ?? "null")]")
        columns.show("Keys:", "[\(message.keys ?? "null")]")
        columns.show("Queue ID:", String(message.queueID))
        columns.show("Queue Offset:", String(message.queueOffset))
        columns.show("CommitLog Offset:", String(message.physicalOffset))
        columns.show("Reconsume Times:", String(message.reconsumeTimes))
        columns.show("Born Timestamp:", AdminTime.millis(message.bornTimestamp))
        columns.show("Store Timestamp:", AdminTime.millis(message.storeTimestamp))
        columns.show("Born Host:", message.bornHost.text)
        columns.show("Store Host:", message.storeHost.text)
        columns.show("System Flag:", String(message.sysFlag))
        columns.show("Properties:", message.javaProperties)
        // RocketMQ's tool writes the body into a folder anybody may prepare for it; here it is shown.
        columns.show("Message Body:", String(decoding: message.body, as: UTF8.self))
        print("")
        let groups = await TopicListCommand.groups(message.topic, try? route(message.topic), self)
        if groups.isEmpty { print("WARN: No Consumer") }
        for group in groups {
            let (type, why) = await track(message, group)
            print("MessageTrack [consumerGroup=\(group), trackType=\(type), exceptionDesc=\(why ?? "null")]")
        }
    }

    /// Whether a group has consumed a message, in RocketMQ's words (`TrackType`), and why that is not known.
    private func track(_ message: MessageExt, _ group: String) async -> (String, String?) {
        do {
            let connection = try await consumers(of: group)
            if connection.json["consumeType"]?.string == "CONSUME_ACTIVELY" { return ("PULL", nil) }
            let isConsumed = try await consumeStats(group, topic: message.topic).rows.contains { row in
                row.queue.queueId == Int(message.queueID) && row.consumerOffset > message.queueOffset
            }
            guard isConsumed else { return ("NOT_CONSUME_YET", nil) }
            let tags = connection.json["subscriptionTable"]?[message.topic]?["tagsSet"]?.array?.compactMap(\.string)
            guard let tags, !tags.isEmpty, !tags.contains("*"), !tags.contains(message.tags ?? "") else {
                return ("CONSUMED", nil)
            }
            return ("CONSUMED_BUT_FILTERED", nil)
        } catch let refusal as Refusal where refusal.code == .consumerNotOnline {
            return ("NOT_ONLINE", refusal.description)
        } catch {
            return ("UNKNOWN", "\(error)")
        }
    }

    func consumeDirectly(_ message: MessageExt, _ group: String, _ client: String) async throws {
        let route = try await route(message.topic)
        guard
            let broker = route.brokerDatas.first(where: { $0.brokerAddrs.values.contains(message.storeHost.text) })
                ?? route.brokerDatas.first, let address = broker.preferredAddress
        else { throw CommandFailure("topic '\(message.topic)' has no broker") }
        let json = try await demand(
            address, .consumeMessageDirectly,
            [
                "consumerGroup": group, "clientId": client, "msgId": message.offsetMessageID,
                "brokerName": broker.brokerName,
            ], timeout: .seconds(30)
        ).json()
        func text(_ key: String) -> String { json[key]?.string ?? "null" }
        print(
            "ConsumeMessageDirectlyResult [order=\(text("order")), autoCommit=\(text("autoCommit")), "
                + "consumeResult=\(text("consumeResult")), remark=\(text("remark")), "
                + "spentTimeMills=\(text("spentTimeMills"))]")
    }
}

extension MessageExt {
    func has(_ key: String, isUnique: Bool) -> Bool {
        if isUnique || properties[MessageProperties.uniqueKey] == key { return messageID == key }
        return keys?.split(separator: " ").contains { $0 == key } ?? false
    }

    var javaProperties: String {
        "{\(properties.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ", "))}"
    }

    /// As Java prints it, but for the body, which the commands print as text.
    func javaText(brokerName: String) -> String {
        "MessageExt [brokerName=\(brokerName), queueId=\(queueID), storeSize=\(storeSize), queueOffset=\(queueOffset), "
            + "sysFlag=\(sysFlag), bornTimestamp=\(bornTimestamp), bornHost=/\(bornHost.text), "
            + "storeTimestamp=\(storeTimestamp), storeHost=/\(storeHost.text), msgId=\(offsetMessageID), "
            + "commitLogOffset=\(physicalOffset), bodyCRC=\(bodyCRC), reconsumeTimes=\(reconsumeTimes), "
            + "preparedTransactionOffset=\(preparedTransactionOffset), toString()=Message{topic='\(topic)', "
            + "flag=\(flag), properties=\(javaProperties)}]"
    }
}
