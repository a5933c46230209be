import Testing

/// Scenarios on real platforms: `apus up`, its workers and clients as processes of their own, as a user has them.
///
/// One after the other: they measure times and kill processes, and the machine may have two cores. The folder with the
/// binaries is `APUS_BIN_DIR` or that of this build; the scenarios with the official client need `Tests/Clients/setup`.
@Suite("PlatformTests", .serialized)
struct PlatformTests {}

/// The scenarios that need the official C++ client.
let needsOfficialClient = ConditionTrait.enabled(
    if: OfficialClient.isInstalled, "Tests/Clients/setup has not been run: no official C++ client")
