import Foundation
import Logging
import Testing

@testable import Systemd

@Suite struct LogHandlerTests {
    @Test(arguments: [
        ("topic", "APUS_TOPIC"), ("consumerGroup", "APUS_CONSUMER_GROUP"), ("queueId", "APUS_QUEUE_ID"),
        ("remote-address", "APUS_REMOTE_ADDRESS"), ("größe", "APUS_GR__E"), ("brokerIP1", "APUS_BROKER_IP1"),
        (String(repeating: "x", count: 100), "APUS_" + String(repeating: "X", count: 59)),
    ]) func metadataKeysBecomeFieldNames(_ pair: (key: String, field: String)) {
        #expect(JournalLogHandler.fieldName(pair.key) == pair.field)
    }

    @Test func linesForPeople() {
        #expect(
            JournalLogHandler.text("loaded", ["type": "TAG", "path": "/x", "about": "filter-0"])
                == "loaded path=/x type=TAG")
        let handler = StderrLogHandler(worker: "filter-0", level: .info, colour: false)
        let line = handler.line(
            level: .info, message: "loaded", metadata: ["type": "TAG", "path": "/x", "about": "filter-0"],
            seconds: 0, milliseconds: 7)
        #expect(line.hasSuffix(".007 filter-0       loaded path=/x type=TAG\n"))
        #expect(
            handler.line(level: .error, message: "broken", metadata: [:], seconds: 0, milliseconds: 0)
                .hasSuffix(".000 filter-0       error: broken\n"))
    }
}
