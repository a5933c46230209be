import ArgumentParser
import FastJSON
import RocketMQClient
import Testing

@testable import apus

@Suite("apus admin: values become lines and JSON")
struct AdminLinesTests {
    private let queue = MessageQueue(topic: "T", brokerName: "a", queueID: 1)

    @Test("every command that shows something has --json and names the keys; the others change something")
    func help() {
        var changing: [String] = []
        for command in AdminCommands.all {
            let shows = command is any ShowingCommand.Type || command is any StreamingCommand.Type
            let name = command.configuration.commandName ?? ""
            guard shows || name == "updateOrderConf" else {
                changing.append(name)
                continue
            }
            let help = command.helpMessage()
            #expect(help.contains("--json") && help.contains("JSON: "), "\(name)")
        }
        #expect(
            changing.sorted() == [
                "addWritePerm", "cleanExpiredCQ", "cleanUnusedTopic", "cloneGroupOffset", "deleteExpiredCommitLog",
                "deleteKvConfig", "deleteSubGroup", "deleteTopic", "setConsumeMode", "updateBrokerConfig",
                "updateKvConfig", "updateNamesrvConfig", "updateSubGroup", "updateTopic", "updateTopicPerm",
                "wipeWritePerm",
            ])
    }

    @Test("topicStatus")
    func topicStatus() throws {
        let command = try TopicStatus.parse(["-t", "T"])
        let value = [QueueStatus(queue: queue, minOffset: 2, maxOffset: 9, lastUpdated: 0)]
        #expect(
            command.lines(value) == [
                "#Broker Name                      #QID  #Min Offset           #Max Offset             #Last Updated",
                "a                                 1     2                     9                       ",
            ])
        #expect(
            command.json(value).text()
                == #"[{"topic":"T","brokerName":"a","queueId":1,"minOffset":2,"maxOffset":9,"lastUpdateTimestamp":0}]"#)
    }

    @Test("topicRoute, as JSON and as a table")
    func topicRoute() throws {
        let value = TopicRoute(
            topic: "T", brokers: [BrokerDescription(cluster: "C", name: "a", addresses: [0: "h:1", 1: "h:2"])],
            queues: [TopicQueues(brokerName: "a", readQueues: 4, writeQueues: 2, permission: 6)])
        let list = try TopicRouteCommand.parse(["-t", "T", "-l"]).lines(value)
        #expect(list.count == 4 && list[1].hasPrefix("C ") && list[1].contains("{0=h:1, 1=h:2}"))
        #expect(list.last?.hasPrefix("Total:") == true && list.last?.contains("4          2") == true)
        let plain = try TopicRouteCommand.parse(["-t", "T"])
        #expect(plain.lines(value).joined().contains("\"readQueueNums\":4"))
        #expect(
            plain.json(value).text(.standard)
                == #"{"brokerDatas":[{"brokerAddrs":{"0":"h:1","1":"h:2"},"brokerName":"a","cluster":"C"}],"#
                + #""filterServerTable":{},"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":4,"topicSysFlag":0,"#
                + #""writeQueueNums":2}]}"#)
        #expect(value.readableQueues.count == 4)
    }

    @Test("topicList, with and without clusters")
    func topicList() throws {
        let topics = [
            TopicListCommand.Topic(name: "T", cluster: "C", groups: ["g1", "g2"]), TopicListCommand.Topic(name: "U"),
        ]
        #expect(try TopicListCommand.parse([]).lines(topics) == ["T", "U"])
        let lines = try TopicListCommand.parse(["-c"]).lines(topics)
        #expect(lines.count == 4 && lines[2].contains("g2") && lines[3].contains("U"))
        #expect(
            try TopicListCommand.parse(["-c"]).json(topics).text()
                == #"[{"topic":"T","cluster":"C","groups":["g1","g2"]},{"topic":"U","cluster":"","groups":[]}]"#)
    }

    @Test("consumerProgress of one group, with its consumers, and of all")
    func progress() throws {
        let row = ConsumerProgressReport.Row(queue: queue, brokerOffset: 9, consumerOffset: 4, lastTimestamp: 0)
        let report = ConsumerProgressReport(rows: [row], messagesPerSecond: 1.5)
        let command = try ConsumerProgress.parse(["-g", "g", "-s", "true"])
        let lines = command.lines(.group(report, owners: [queue: "10.0.0.1"]))
        #expect(lines[0].contains("#Client IP") && lines[1].contains("10.0.0.1") && lines[1].contains("N/A"))
        #expect(lines.last == "\nConsume TPS: 1.50\nDiff Total: 5")
        #expect(
            command.json(.group(report, owners: [queue: "10.0.0.1"])).text()
                == #"{"consumeTps":1.5,"diffTotal":5,"queues":[{"topic":"T","brokerName":"a","queueId":1,"#
                + #""brokerOffset":9,"consumerOffset":4,"diff":5,"lastTimestamp":0,"clientIP":"10.0.0.1"}]}"#)
        let offline = ConsumerProgress.Summary(group: "g", report: report, consumers: nil)
        let all = command.lines(.all([offline]))
        #expect(all.count == 2 && all[1].contains("OFFLINE") && all[1].hasSuffix("5"))
        #expect(command.json(.all([offline])).text() == #"[{"group":"g","count":0,"consumeTps":1.5,"diffTotal":5}]"#)
    }

    @Test("offsets that were set: two tables, one form of JSON")
    func reset() throws {
        let online = OffsetReset(notified: [OffsetReset.Notified(queue: queue, offset: 7)])
        #expect(online.lines.count == 2 && online.lines[0].hasPrefix("#brokerName ") && online.lines[1].contains("7"))
        #expect(
            online.json.text()
                == #"{"online":true,"queues":[{"topic":"T","brokerName":"a","queueId":1,"offset":7}]}"#)
        let offline = OffsetReset(
            isOnline: false,
            rows: [
                OffsetReset.Row(
                    queue: queue, brokerOffset: 9, consumerOffset: 4, timestampOffset: 1, rollbackOffset: 4)
            ])
        #expect(offline.lines[0].contains("#rollbackOffset") && offline.json["online"]?.bool == false)
        let command = try ResetOffsetByTime.parse(["-g", "g", "-t", "T", "-s", "now"])
        #expect(
            command.lines(offline).first
                == "rollback consumer offset by specified consumerGroup[g], topic[T], force[true], "
                + "timestamp(string)[now], timestamp(long)[-1]")
    }

    @Test("a message that was found, and who has consumed it")
    func message() throws {
        let message = ReceivedMessage(
            topic: "T", queue: queue, queueOffset: 3, body: Array("hi".utf8),
            properties: ["TAGS": "x", "UNIQ_KEY": "ID"])
        let command = try PrintMsg.parse(["-t", "T", "-d", "false"])
        let line = command.lines(.message(message))[0]
        #expect(line.hasPrefix("MSGID: ID MessageExt [brokerName=a, queueId=1, ") && line.hasSuffix("NOT PRINT BODY"))
        #expect(line.contains("toString()=Message{topic='T', flag=0, properties={TAGS=x, UNIQ_KEY=ID}}]"))
        #expect(command.json(.queueEnds).isEmpty)
        let json = try #require(command.json(.message(message)).first)
        #expect(json["body"]?.string == "hi" && json["tags"]?.string == "x" && json["queueOffset"]?.integer == 3)
        for key in ReceivedMessage.jsonKeys.split(separator: ",").map({ $0.drop { $0 == " " } }) where key != "keys" {
            #expect(json[String(key)] != nil, "\(key)")
        }
    }

    @Test("clusterList: a server that does not answer keeps its line, and says why on standard error")
    func clusterList() throws {
        let command = try ClusterList.parse([])
        var value = ClusterList.Value(time: 3_600_000)
        value.servers = [
            .init(cluster: "C", broker: "a", id: 0, address: "h:1", figures: ["earliestMessageTimeStamp": "1"]),
            .init(cluster: "C", broker: "a", id: 1, address: "h:2", failure: "away"),
        ]
        #expect(command.lines(value).count == 3 && command.lines(value)[1].contains(" 1.00 "))
        #expect(command.warnings(value) == ["h:2: away"])
        #expect(command.json(value).array?.last?["failure"]?.string == "away")
    }

    @Test("settings and figures keep their names")
    func settings() throws {
        let command = try GetBrokerConfig.parse(["-b", "h:1"])
        let value = [GetBrokerConfig.Server(title: "h:1", address: "h:1", settings: [("a", "1"), ("b", "")])]
        #expect(command.lines(value).first == "============h:1============" && command.lines(value).last == "")
        #expect(command.lines(value)[1].hasPrefix("a ") && command.lines(value)[1].hasSuffix("=  1"))
        #expect(command.json(value).text() == #"{"h:1":{"a":"1","b":""}}"#)
    }

    @Test("sent messages")
    func sent() throws {
        let result = SendResult(
            status: .flushDiskTimeout, messageID: "ID", offsetMessageID: "OID", queue: queue, queueOffset: 5)
        let command = try SendMessage.parse(["-t", "T", "-p", "x"])
        #expect(command.lines(result)[1].hasPrefix("a ") && command.lines(result)[1].hasSuffix("ID"))
        #expect(command.json(result)["sendStatus"]?.string == "FLUSH_DISK_TIMEOUT")
        #expect(
            result.javaText == "SendResult [sendStatus=FLUSH_DISK_TIMEOUT, msgId=ID, offsetMsgId=OID, "
                + "messageQueue=MessageQueue [topic=T, brokerName=a, queueId=1], queueOffset=5]")
    }

    @Test("traces as RocketMQ's table")
    func traces() throws {
        let record = MessageTraceRecord(
            isConsumption: true, group: "g", clientHost: "h:1", timestamp: nil, cost: "3", isSuccess: false)
        let command = try QueryMsgTraceByID.parse(["-i", "ID"])
        let lines = command.lines([record])
        #expect(lines[0].contains("#ConsumerGroup") && lines[1].contains("3ms") && lines[1].contains("failed"))
        #expect(
            command.json([record]).text()
                == #"[{"type":"Sub","group":"g","clientHost":"h:1","cost":"3","success":false}]"#)
    }
}
