import TestTools
import Testing
import WorkerProtocol

@Suite struct SettingsTests {
    @Test func whereACommitLogLies() {
        let settings = Settings([
            "storePathRootDir": "/a", "storePathRootDir#1": "/b", "storePathCommitLog#1": "/log",
            "storePathCommitLog": "",
        ])
        #expect(settings.commitLogFolder() == "/a/commitlog")
        #expect(settings.commitLogFolder(suffix: "#1") == "/log")
        #expect(Settings().commitLogFolder() == "store/commitlog")
    }

    @Test func gettersReadAndFallBack() {
        let settings = Settings(["n": "42", "bad": "x", "yes": "TRUE", "no": "False", "empty": ""])
        #expect(settings.int("n", default: 1) == 42)
        #expect(settings.int("bad", default: 1) == 1)
        #expect(settings.int("absent", default: 1) == 1)
        #expect(settings.bool("yes", default: false))
        #expect(!settings.bool("no", default: true))
        #expect(settings.bool("bad", default: true))
        #expect(settings.string("empty", default: "d") == "")
    }
}
