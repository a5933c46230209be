import Foundation
import LinuxSystem
import SettingTable
import Systemd
import Testing
import WorkerProtocol

@testable import Supervision

@Suite struct PropertiesFileTests {
    @Test func rocketMQsBrokerConf() throws {
        let text = """
            # Licensed …
            brokerClusterName = DefaultCluster
            brokerName=broker-a
            brokerId:0
            deleteWhen 04
            ! another comment
            namesrvAddr = 10.0.0.1:9876;\\
                          10.0.0.2:9876
            path=C\\:\\\\store \\u00fc
            empty=
            """
        let values = try PropertiesFile.parse(text)
        #expect(
            values == [
                "brokerClusterName": "DefaultCluster", "brokerName": "broker-a", "brokerId": "0", "deleteWhen": "04",
                "namesrvAddr": "10.0.0.1:9876;10.0.0.2:9876", "path": "C:\\store ü", "empty": "",
            ])
    }

    @Test func carriageReturnsAndNoFinalNewline() throws {
        #expect(try PropertiesFile.parse("a=1\r\nb=2") == ["a": "1", "b": "2"])
    }

    @Test func mistakesNameTheirLine() {
        #expect(throws: ConfigurationError("line 2: no key before '='")) { try PropertiesFile.parse("a=1\n=2") }
        #expect(throws: ConfigurationError.self) { try PropertiesFile.parse("a=\\u12") }
    }
}
