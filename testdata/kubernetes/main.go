// Stands in the place of two programs that no package has: crictl, as far as kubeadm 1.20 and sealrs call it, over the CRI of
// a real containerd; and, under the name coredns, a server that says it is healthy and ready, and answers nothing.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "FATA[0000] %s: %v\n", what, err)
	os.Exit(1)
}

func coredns() {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") })
	go func() { fail("health", http.ListenAndServe(":8080", ok)) }()
	fail("ready", http.ListenAndServe(":8181", ok))
}

// flags takes those of the names out of the arguments, each with its value; others are without one.
func flags(arguments []string, names ...string) (map[string]string, []string) {
	found, rest := map[string]string{}, []string{}
	for i := 0; i < len(arguments); i++ {
		name, value, joined := strings.Cut(arguments[i], "=")
		switch {
		case !strings.HasPrefix(name, "-"):
			return found, append(rest, arguments[i:]...)
		case joined:
			found[strings.TrimLeft(name, "-")] = value
		default:
			key := strings.TrimLeft(name, "-")
			found[key] = ""
			for _, known := range names {
				if known == key && i+1 < len(arguments) {
					i++
					found[key] = arguments[i]
				}
			}
		}
	}
	return found, rest
}

func main() {
	if filepath.Base(os.Args[0]) == "coredns" {
		coredns()
	}
	global, arguments := flags(os.Args[1:], "r", "runtime-endpoint", "i", "image-endpoint")
	if len(arguments) == 0 {
		fmt.Println("crictl version v1.20.0")
		return
	}
	command := arguments[0]
	given, arguments := flags(arguments[1:], "name", "state", "o")
	endpoint := "unix:///run/sealrs-containerd/containerd.sock"
	for _, name := range []string{"r", "runtime-endpoint"} {
		if value, ok := global[name]; ok {
			endpoint = value
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	connection, err := grpc.DialContext(ctx, endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail("connect", err)
	}
	runtime, images := cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	check := func(err error) {
		if err != nil {
			fail(command, err)
		}
	}
	_, quiet := given["q"]
	switch command {
	case "info":
		answer, err := runtime.Status(ctx, &cri.StatusRequest{Verbose: true})
		check(err)
		text, err := json.MarshalIndent(map[string]any{"status": answer.Status}, "", " ")
		check(err)
		fmt.Println(string(text))
	case "pods":
		answer, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		check(err)
		for _, pod := range answer.Items {
			fmt.Print(pod.Id)
			if !quiet {
				fmt.Printf(" %s %s/%s", pod.State, pod.Metadata.Namespace, pod.Metadata.Name)
			}
			fmt.Println()
		}
	case "ps":
		answer, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{})
		check(err)
		name := regexp.MustCompile(given["name"])
		for _, container := range answer.Containers {
			if container.State != cri.ContainerState_CONTAINER_RUNNING || !name.MatchString(container.Metadata.Name) {
				continue
			}
			fmt.Print(container.Id)
			if !quiet {
				fmt.Printf(" %s %s", container.Metadata.Name, container.Image.Image)
			}
			fmt.Println()
		}
	case "exec":
		answer, err := runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: arguments[0], Cmd: arguments[1:], Timeout: 60})
		check(err)
		os.Stdout.Write(answer.Stdout)
		os.Stderr.Write(answer.Stderr)
		os.Exit(int(answer.ExitCode))
	case "stopp":
		for _, id := range arguments {
			_, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
			check(err)
		}
	case "rmp":
		for _, id := range arguments {
			_, err := runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
			check(err)
		}
	case "pull":
		_, err := images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: arguments[0]}})
		check(err)
	case "inspecti":
		answer, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: arguments[0]}})
		check(err)
		if answer.Image == nil {
			fail(command, fmt.Errorf("no such image %q present", arguments[0]))
		}
	default:
		fail(command, fmt.Errorf("the stand-in does not have it"))
	}
}
