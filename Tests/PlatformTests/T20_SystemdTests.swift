import Testing

extension PlatformTests {
    /// units/apus.service as an operator has it, in a real systemd that is thrown away afterwards
    /// (`Tests/Support/systemd/scenarios`).
    @Suite("T20 systemd", .serialized)
    struct T20_Systemd {
        @Test("the unit starts, survives killed and frozen processes, reloads, stops", .timeLimit(.minutes(3)))
        func service() throws { try Systemd.run("service") }
    }
}
