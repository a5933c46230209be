import MessageModel
import Testing

@testable import BrokerService

@Suite("timer messages: properties and handles")
struct TimerPropertiesTests {
    private func request(_ text: String, maxDelay: Int64 = 1_000_000) -> TimerProperties.Delivery {
        let bytes = Array(text.replacing("=", with: "\u{1}").replacing(";", with: "\u{2}").utf8)
        return bytes.withUnsafeBytes { TimerProperties.request($0, now: 10_000, maxDelay: maxDelay) }
    }

    @Test("the time of delivery as RocketMQ 5 works it out")
    func request() {
        #expect(request("TAGS=a") == .now)
        #expect(request("TIMER_DELAY_MS=3500;TAGS=T") == .at(13_500))
        #expect(request("TIMER_DELAY_SEC=6") == .at(16_000))
        #expect(request("TIMER_DELIVER_MS=10001") == .at(10_001))
        #expect(request("TIMER_DELIVER_MS=10000") == .now)
        #expect(request("TIMER_DELAY_SEC=1;TIMER_DELIVER_MS=99999") == .at(11_000))
        #expect(request("TIMER_DELAY_MS=1000001") == .illegal)
        #expect(request("TIMER_DELAY_MS=1000000") == .at(1_010_000))
        #expect(request("TIMER_DELAY_SEC=soon") == .illegal)
        #expect(request("TIMER_DELAY_SEC=9223372036854775807") == .illegal)
        #expect(request("TIMER_DELAY_MS=-5") == .now)
        #expect(request("TIMER_DELIVER_MS=9999;TIMER_DEL_UNIQKEY=t+k") == .illegal)
        #expect(request("TIMER_OUT_MS=99999;TIMER_DELAY_MS=5") == .now)
    }

    @Test("the handle Apache 5.3.3 gave is read, and ours is written as it does")
    func handle() throws {
        let text =
            "djEgRjVfcmVjYWxsX3MyOXcwIGJyb2tlci1hIDE3OTUyNDcxNDUwMDEgRkQwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDIwNUMwNUZGRDJCMjc2OEE5N0EzMDAwMDA="
        let handle = try #require(RecallHandle(text))
        #expect(handle.topic == "F5_recall_s29w0")
        #expect(handle.brokerName == "broker-a")
        #expect(handle.timestamp == "1795247145001")
        #expect(handle.uniqueKey == "FD00000000000000000000000000000205C05FFD2B2768A97A300000")
        #expect(handle.text == text)
        for broken in ["", "djE", "%%%%", "djIgYSBiIGMgZA==", "djEgYSBi"] { #expect(RecallHandle(broken) == nil) }
    }

    @Test("base 64 of every length comes back")
    func base64() {
        for count in 0..<40 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 250) }
            #expect(Base64.urlSafe.decode(Base64.urlSafe.encode(bytes).utf8) == bytes)
        }
    }
}
