import ArgumentParser
import RocketMQClient
import SettingTable
import Testing

@testable import apus

@Suite("what operators read")
struct OperatorTests {
    @Test("the data directory of a supervisor is found as it chooses it")
    func directories() {
        #expect(MachinePlatforms.directory(["apusd", "--data-dir", "/a"], []) == "/a")
        #expect(MachinePlatforms.directory(["apus up", "--data-dir=/b", "x"], ["HOME=/h"]) == "/b")
        #expect(MachinePlatforms.directory([], ["STATE_DIRECTORY=/var/lib/apus:/x", "HOME=/h"]) == "/var/lib/apus")
        #expect(MachinePlatforms.directory([], ["XDG_STATE_HOME=/s", "HOME=/h"]) == "/s/apus")
        #expect(MachinePlatforms.directory(["apusd"], ["HOME=/h"]) == "/h/.local/state/apus")
        #expect(MachinePlatforms.directory(["apusd"], []) == nil)
    }

    @Test("the unit of a process is the last service of its control group")
    func units() {
        #expect(MachinePlatforms.unit("0::/apus.slice/apus.service\n") == "apus.service")
        #expect(MachinePlatforms.unit("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run.scope") == nil)
        #expect(MachinePlatforms.unit("0::/") == nil && MachinePlatforms.unit(nil) == nil)
    }

    @Test("the state of the service, each with the command to type")
    func service() {
        #expect(ServiceUnit.state(from: "LoadState=loaded\nActiveState=inactive\n") == "inactive")
        #expect(ServiceUnit.state(from: "LoadState=not-found\nActiveState=inactive\n") == nil)
        #expect(
            ServiceUnit.remark(state: "inactive", isAllowed: true) == "apus.service is inactive: systemctl start apus")
        #expect(ServiceUnit.remark(state: "failed", isAllowed: true)?.contains("journalctl -u apus -p err") == true)
        #expect(ServiceUnit.remark(state: "active", isAllowed: true) == nil)
        #expect(ServiceUnit.remark(state: "active", isAllowed: false)?.contains("not allowed") == true)
        #expect(ServiceUnit.remark(state: nil, isAllowed: false)?.contains("not allowed") == true)
        #expect(ServiceUnit.remark(state: nil, isAllowed: true) == nil)
    }

    @Test("where a log goes")
    func logs() {
        #expect(LogPlace.place("socket:[123]", unit: "apus.service") == .journal(unit: "apus.service"))
        #expect(LogPlace.place("/tmp/apus.log", unit: nil) == .file("/tmp/apus.log"))
        #expect(LogPlace.place("/dev/pts/3", unit: nil) == .elsewhere("the terminal /dev/pts/3"))
        #expect(LogPlace.place("pipe:[9]", unit: nil) == .elsewhere("another program (pipe:[9])"))
    }

    @Test("what was done at some servers and not at others")
    func partly() {
        let failed = [(address: "b:2", reason: "refused")]
        let text = AdminFailure.text(.partlyDone(done: ["a:1"], failed: failed))
        #expect(text == "done at a:1, not everywhere\n  not at b:2: refused\nDo it again there: -n 'b:2'")
        #expect(AdminFailure.text(.partlyDone(done: [], failed: failed)) == "done nowhere\n  not at b:2: refused")
    }

    @Test("settings: who set them, and what holds without an online change")
    func settings() {
        let settings = RunningSettings(
            values: ["fileReservedTime": "48", "brokerName": "broker-a", "flushDiskType": "SYNC_FLUSH", "odd": "1"],
            runtime: ["changedSetting_fileReservedTime": "48 (file: 24)", "putTps": "1 1 1"])
        let rows = ConfigDiff.rows(settings, all: false)
        #expect(
            rows == [
                ConfigDiff.Row(key: "fileReservedTime", value: "48", source: "online", instead: "file: 24"),
                ConfigDiff.Row(key: "flushDiskType", value: "SYNC_FLUSH", source: "file", instead: "ASYNC_FLUSH"),
            ])
        #expect(ConfigDiff.rows(settings, all: true).contains { $0.key == "brokerName" && $0.source == "default" })
        #expect(settings.original("fileReservedTime") == "24")
        let unsaid = RunningSettings(
            values: ["fileReservedTime": "48"], runtime: ["changedSetting_fileReservedTime": "48 (not in the file)"])
        #expect(unsaid.original("fileReservedTime") == SettingTable.setting("fileReservedTime")?.standard)
    }
}
