import Testing

extension PlatformTests {
    /// units/apus.service as an operator has it, in a real systemd that is thrown away afterwards
    /// (`Tests/Support/systemd/scenarios`).
    @Suite("T20 systemd", .serialized)
    struct T20_Systemd {
        @Test("the unit starts, survives killed and frozen processes, reloads, stops", .timeLimit(.minutes(3)))
        func service() throws { try Systemd.run("service") }

        @Test(
            "failed starts, reload, a full disk, a plugin out of use: said by systemctl, the journal and apus status",
            .timeLimit(.minutes(3)))
        func states() throws { try Systemd.run("states") }
    }
}
