import FastJSON
import SettingTable
import Testing

@Suite("the table of settings")
struct SettingTableTests {
    @Test("every row stands once, describes itself, and takes its own default")
    func rows() throws {
        #expect(Set(SettingTable.all.map(\.name)).count == SettingTable.all.count)
        for setting in SettingTable.all {
            #expect(!setting.meaning.isEmpty && !setting.meaning.hasSuffix("."), "\(setting.name)")
            #expect(
                RocketMQSettings.verdict(setting.name, "true")?.consequence != .refused, "\(setting.name) has two rows")
            // Some defaults are words: `listenPort - 2`.
            guard !setting.standard.isEmpty, !setting.standard.contains(" ") || setting.name == "messageDelayLevel"
            else {
                continue
            }
            #expect(try setting.canonical(setting.standard) == setting.standard, "\(setting.name)")
        }
    }

    @Test("what may cost messages says so, for both of its values")
    func forcedDeletion() throws {
        let setting = try #require(SettingTable.all.first { $0.name == "cleanFileForciblyEnable" })
        #expect(setting.meaning.contains("true deletes the oldest messages, consumed or not"))
        #expect(setting.meaning.contains("false refuses new ones"))
    }

    struct Reading: Sendable {
        let key: String
        let text: String
        /// nil: refused, with `words` in the reason.
        let value: String?
        let words: String

        init(_ key: String, _ text: String, _ value: String?, _ words: String = "") {
            (self.key, self.text, self.value, self.words) = (key, text, value, words)
        }
    }

    static let readings = [
        Reading("traceOn", "True", "true"), Reading("traceOn", " FALSE ", "false"),
        Reading("traceOn", "no", nil, "true or false; is false meant?"),
        Reading("traceOn", "0", nil, "true or false; is false meant?"),
        Reading("traceOn", "yes", nil, "RocketMQ takes yes for false"), Reading("traceOn", "", nil, "empty"),
        Reading("traceOn", "ture", nil, "is true meant?"),
        Reading("fileReservedTime", " 48 ", "48"), Reading("fileReservedTime", "+48", "48"),
        Reading("fileReservedTime", "048", "48"),
        Reading("fileReservedTime", "4 8", nil, "\" \" at position 2 is no digit; is 48 meant?"),
        Reading("fileReservedTime", "48 # two days", nil, "a remark needs a line of its own; is 48 meant?"),
        Reading("fileReservedTime", "-1", nil, "from 0 to 1000000"),
        Reading("fileReservedTime", "99999999999999999999", nil, "the number is too long"),
        Reading("fileReservedTime", "soon", nil, "a whole number from 0"),
        Reading("maxMessageSize", "4MB", nil, "\"M\" at position 2 is no digit: write the bytes; is 4194304 meant?"),
        Reading("maxMessageSize", "1024 * 1024 * 4", nil, "write the result; is 4194304 meant?"),
        Reading("maxMessageSize", "4_194_304", nil, "is 4194304 meant?"),
        Reading("maxMessageSize", "4194304L", nil, "is 4194304 meant?"),
        Reading("brokerPermission", "9", nil, "0 to 7"), Reading("brokerPermission", "2", "2"),
        Reading("defaultTopicQueueNums", "0", nil, "1 to 65535"),
        Reading("deleteWhen", "04", "04"), Reading("deleteWhen", "4", "04"), Reading("deleteWhen", "04;16", "04;16"),
        Reading("deleteWhen", "04; 05 ;23", "04;05;23"), Reading("deleteWhen", "25", nil, "00 to 23"),
        Reading("deleteWhen", "x", nil, "00 to 23"), Reading("deleteWhen", "", nil, "empty"),
        Reading("deleteWhen", "-1", nil, "00 to 23"),
        Reading("messageDelayLevel", "1s  2d", "1s 2d"), Reading("messageDelayLevel", "1s 5x", nil, "1s 5m"),
        Reading("messageDelayLevel", "1s 9999999999999999d", nil, "1s 5m"),
        Reading("messageDelayLevel", "", nil, "empty"),
        Reading("flushDiskType", "SYNC_FLUSH", "SYNC_FLUSH"),
        Reading("flushDiskType", "sync_flush", nil, "is SYNC_FLUSH meant?"),
        Reading("brokerIP1", "localhost", "localhost"), Reading("brokerIP1", "rmq_broker-1.svc", "rmq_broker-1.svc"),
        Reading("brokerIP1", "10.0.0.300", nil, "an IPv4 address or a host name"),
        Reading("brokerIP1", "::1", nil, "an IPv4 address or a host name"), Reading("brokerIP1", "", ""),
        Reading("namesrvAddr", "a:1;b:2", "a:1;b:2"), Reading("namesrvAddr", "a:1, b:2", "a:1;b:2"),
        Reading("namesrvAddr", "nowhere", nil, "HOST:PORT"), Reading("namesrvAddr", "", ""),
        Reading("namesrvAddr", "http://a:1", nil, "http://a:1 is none"),
        Reading("storePathCommitLog", "/d0/log,/d1/log", nil, "spreads its log over several"),
        Reading("storePathRootDir", "/data,1/store", "/data,1/store"),
        Reading("storePathRootDir", "~/store", nil, "a path"),
        Reading("brokerName", "a/../b", nil, "slashes"), Reading("brokerName", "broker a", nil, "blanks"),
        Reading("brokerName", "a\u{1b}[31m", nil, "control characters"), Reading("brokerName", "..", nil, "a name"),
        Reading("somethingElse", " as it is ", " as it is "),
    ]

    @Test("each text is read in one way, or refused with what is expected and what was meant", arguments: readings)
    func reading(_ reading: Reading) throws {
        if let value = reading.value {
            #expect(try SettingTable.canonical(reading.key, reading.text) == value)
        } else {
            let error = #expect(throws: SettingRefusal.self) {
                try SettingTable.canonical(reading.key, reading.text)
            }
            #expect(error?.description.contains(reading.words) == true, "\(error?.description ?? "")")
            #expect(error?.description.hasPrefix("\(reading.key) = ") == true)
        }
    }

    @Test("a refusal shows a stranger's text without line ends and escape sequences, and not all of a long one")
    func foreignText() {
        let refusal = SettingTable.refusals(["traceOn": "x\n\u{1b}[2J" + String(repeating: "y", count: 500)])
        #expect(refusal.first?.description.contains("traceOn = x\\u{a}\\u{1b}[2Jyyy") == true)
        #expect((refusal.first?.description.count ?? 0) < 200)
    }

    @Test("what an operator may change while it runs, and by which request")
    func changes() {
        func refusal(_ key: String, _ value: String, _ reader: Setting.Readers = .broker) -> String? {
            SettingTable.refusal(ofChange: key, to: value, by: reader, restart: "apus restart X")
        }
        #expect(refusal("fileReservedTime", "48") == nil && refusal("namesrvAddr", "a:9876") == nil)
        #expect(refusal("orderMessageEnable", "True", .nameserver) == nil)
        #expect(refusal("orderMessageEnable", "true")?.contains("no setting of a broker") == true)
        #expect(refusal("fileReservedTime", "48", .nameserver)?.contains("no setting of a name server") == true)
        #expect(refusal("listenPort", "1")?.contains("apus restart X") == true)
        #expect(refusal("productEnvName", "x", .nameserver)?.contains("no effect") == true)
        #expect(refusal("orderMessageEnabled", "true", .nameserver)?.contains("is orderMessageEnable meant?") == true)
        #expect(refusal("line\nend", "1") == "there is no setting line\\u{a}end")
    }

    @Test("promises are made by values, not by keys")
    func promises() {
        func consequence(_ key: String, _ value: String) -> RocketMQSettings.Consequence? {
            RocketMQSettings.verdict(key, value)?.consequence
        }
        for (key, on, off) in [
            ("aclEnable", "true", "false"), ("enableDLegerCommitLog", "True", "FALSE"),
            ("enableControllerMode", "true", "false"), ("authenticationEnabled", "true", "false"),
            ("authorizationEnabled", "true", "false"), ("tls.server.mode", "enforcing", "disabled"),
            ("tls.server.certPath", "/etc/x.pem", ""), ("useTLS", "true", "false"), ("inSyncReplicas", "2", "1"),
            ("storeType", "defaultRocksDB", "default"), ("readOnlyCommitLogStorePaths", "/old", ""),
            ("controllerAddr", "c:9878", ""), ("messageStorePlugIn", "org.apache.X", ""),
        ] {
            #expect(consequence(key, on) == .refused, "\(key)=\(on)")
            #expect(consequence(key, off) == .harmless, "\(key)=\(off)")
        }
        #expect(consequence("sendMessageThreadPoolNums", "16") == .harmless)
        #expect(consequence("enableLmq", "true") == .act)
        #expect(consequence("brokrName", "x") == nil)
    }

    @Test("what was changed online holds until the file says something else; what the table refuses by now is given up")
    func changedSettings() throws {
        let json = try JSONValue(
            parsing: Array(
                #"{"settings":{"fileReservedTime":{"value":"48","file":"72"},"deleteWhen":{"value":"25"},"slaveTimeout":{"value":"9","file":"1"},"gone":{"value":"1"}}}"#
                    .utf8))
        #expect(ChangedSettings.accepts(json))
        var changed = ChangedSettings(file: [("fileReservedTime", "72"), ("slaveTimeout", "2")])
        let loaded = changed.load(json, by: .broker)
        #expect(loaded.held.map(\.key) == ["fileReservedTime"] && loaded.held.map(\.value) == ["48"])
        #expect(loaded.outdated == ["slaveTimeout"] && loaded.refused.count == 2 && changed.isDirty)
        #expect(changed.reload([("fileReservedTime", "72")]).isEmpty)
        #expect(changed.reload([("fileReservedTime", "71")]).count == 1 && changed.changes.isEmpty)
    }

    @Test("Java properties: comments, separators, continued lines, escapes, the lines things stand in")
    func properties() throws {
        let text = "# comment\n! too\n\n a = b\nc:d\ne f\ng\\=h=i\\\n   j\nk=\\u0041\\t\\\\\nlast"
        #expect(
            try JavaProperties.table(text) == [
                "a": "b", "c": "d", "e": "f", "g=h": "ij", "k": "A\t\\", "last": "",
            ])
        #expect(try JavaProperties.parse(text).map(\.line) == [4, 5, 6, 7, 9, 10])
        #expect(try JavaProperties.table("x=1\r\ny=2\r\n") == ["x": "1", "y": "2"])
        #expect(try JavaProperties.table("") == [:])
        let error = #expect(throws: JavaProperties.Malformed.self) { try JavaProperties.parse("a=1\nb=\\u12") }
        #expect(error?.line == 2)
    }

    @Test("the name that was meant, of words that are not longer than any name")
    func spelling() {
        let names = ["fileReservedTime", "deleteWhen", "traceOn", "x"]
        func nearest(_ word: String) -> String? { Spelling.nearest(to: word, among: names) }
        #expect(nearest("filereservedtime") == "fileReservedTime" && nearest("fileReservdTme") == "fileReservedTime")
        #expect(nearest("deletWehn") == "deleteWhen" && nearest("tracOn") == "traceOn")
        #expect(nearest("fileReservTm") == nil && nearest("fileReservedTimeXYZ") == nil && nearest("y") == nil)
        let long = String(repeating: "n", count: 64)
        #expect(Spelling.nearest(to: long, among: [long + "mm"]) == long + "mm")
        #expect(Spelling.nearest(to: long + "n", among: [long]) == nil)
        // As many steps as letters, not as pairs of letters.
        let longest = String(repeating: "n", count: 250_000)
        #expect(Spelling.nearest(to: longest, among: [longest + "m"]) == nil)
        #expect(Spelling.nearest(to: "traceOn", among: [longest, "traceon"]) == "traceon")
    }

    @Test("keys and values of 250 000 bytes are refused at once, and never shown whole")
    func longTexts() throws {
        let long = String(repeating: "1", count: 250_000)
        func refusal(_ key: String, _ value: String) -> String? {
            SettingTable.refusal(ofChange: key, to: value, by: .broker, restart: "")
        }
        for text in [refusal(long, "1"), refusal("traceOn", long), refusal("tls." + long, "true")] {
            #expect(text?.isEmpty == false && (text?.count ?? 1000) < 300, "\(text ?? "nil")")
        }
        #expect(refusal(long, "1")?.contains("its name has 250000 bytes") == true)
        #expect(refusal("namesrvAddr", String(repeating: "a:1;", count: 1025))?.contains("4100 bytes") == true)
        #expect(refusal("namesrvAddr", String(repeating: "a:1;", count: 1024)) == nil)
        // A file's values have no such bound; what is said of them has.
        for key in ["traceOn", "fileReservedTime", "brokerRole", "deleteWhen", "namesrvAddr", "brokerName"] {
            for text in [long, long + " # remark", long + "L", "\(long) * \(long)"] {
                let error = #expect(throws: SettingRefusal.self) { try SettingTable.canonical(key, text) }
                #expect((error?.description.count ?? 1000) < 400, "\(key)")
            }
        }
    }
}
