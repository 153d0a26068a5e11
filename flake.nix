{
  description = "bedplate makes a GPU host reproducible";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" ];
      each = make: builtins.listToAttrs (map (system: { name = system; value = make system; }) systems);
    in
    {
      packages = each (system:
        let pkgs = nixpkgs.legacyPackages.${system};
        in {
          default = pkgs.rustPlatform.buildRustPackage {
            pname = "bedplate";
            version = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).package.version;
            src = self;
            cargoLock.lockFile = ./Cargo.lock;
            # The launcher inside the binary is linked statically (build.rs).
            buildInputs = [ pkgs.glibc.static ];
            # The other tests start registries, container engines and machines: `make test`.
            cargoTestFlags = [ "--lib" ];
            meta = {
              description = "Makes a GPU host reproducible: lock, provision, check, and only then up";
              license = pkgs.lib.licenses.asl20;
              mainProgram = "bedplate";
              platforms = systems;
            };
          };
        });

      devShells = each (system:
        let pkgs = nixpkgs.legacyPackages.${system};
        in {
          default = pkgs.mkShell {
            inputsFrom = [ self.packages.${system}.default ];
            packages = [ pkgs.cargo pkgs.clippy pkgs.rustfmt pkgs.skopeo pkgs.qemu pkgs.openssh pkgs.jq ];
          };
        });
    };
}
